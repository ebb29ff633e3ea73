package kernel

import "sync"

// A vector kernel takes a run of weights, which stays in the first-level cache,
// through all its steps before the next one. A later run is prefetched into the
// second level, as the first one has too few outstanding misses to overlap all
// reading with computing.
const (
	runBytes   = 4 << 10
	runsAhead  = 4
	bytesAhead = runsAhead * runBytes
	maxWeights = runBytes / 2 // in a run
	maxGroups  = maxWeights / 8
)

// runWeights is how many weights of a type a run may have.
func runWeights(t ElementType) int { return runBytes / t.Size() }

// nextRun is how many weights and groups to take together when so many weights
// of a row are left. A single group may be short or long.
func nextRun(groupSize, left int, t ElementType) (n, groups int) {
	if whole := min(runWeights(t), left) / groupSize; groupSize%8 == 0 && whole > 0 {
		return whole * groupSize, whole
	}
	return min(groupSize, left), 1
}

// isRun tells whether n weights in so many groups suit the functions for runs.
func isRun(n, groups, groupSize int, t ElementType) bool {
	return groupSize%8 == 0 && n == groups*groupSize && n <= runWeights(t)
}

// vectorKernels are those of this CPU, the fastest last.
func vectorKernels() (kernels []Kernel) {
	for _, v := range vectorSets() {
		steps := v.vectorSteps()
		kernels = append(kernels, Kernel{
			Name: v.name, Dequantize: v.dequantize, Range: v.rangePart, Code: v.codePart,
			steps: steps, addTails: v.addTails, allStored: v.allStored,
			TrialErrors: func(b *Block) TrialErrors { return trialErrorsOf(b, steps) },
			Quantize: func(b *Block) Fault {
				if b.check(); b.Encoding != Integer {
					return quantizeEncoded(b, steps)
				}
				return v.quantize(b)
			},
		})
	}
	return kernels
}

// vectorScratch is the working memory of one call.
type vectorScratch struct {
	scratch                      // for what is left to the reference
	lo, hi                       [maxGroups]float32
	scales, inverses, zeroPoints [maxGroups]float32
	runCodes, runPacked          [maxWeights]uint8
}

// scratches are used again: clearing one costs as much as a run.
var scratches = sync.Pool{New: func() any { return new(vectorScratch) }}

func takeScratch() *vectorScratch {
	s := scratches.Get().(*vectorScratch)
	s.lanes, s.underflows, s.stop = laneSums{}, 0, nil
	return s
}

// release ends a call, whose outputs others may see from now on.
func (v *vectorSet) release(s *vectorScratch) {
	v.fence()
	scratches.Put(s)
}
