package kernel

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestCodesBeyondIntegers has a search find scales with which some weights
// become integers of more than 32 bits before they are clipped.
func TestCodesBeyondIntegers(t *testing.T) {
	weights := make([]float32, 64)
	for i := range weights {
		weights[i] = float32(i-32) * 1e-3
	}
	weights[5], weights[50] = 3e4, -3e4
	for _, v := range vectorSets() {
		for scale := float32(1e-2); scale > 1e-9; scale /= 7 {
			p := Parameters{Scale: scale, inverse: 1 / scale, ZeroPoint: 7}
			b := Block{
				Format: Format{BitWidth: 4}, Rows: 1, Columns: 64, GroupSize: 64, Weights: make([]byte, 4*64),
				Packed: make([]byte, 32), Scales: make([]float32, 1), ZeroPoints: make([]float32, 1),
			}
			store(b.Weights, weights, Float32)
			s, f := new(vectorScratch), &search{count: 1, n: 64, tiles: 1}
			f.searched[0], f.lo[0], f.hi[0] = true, -3e4, 3e4
			f.lanes.bestScale[0], f.lanes.bestZeroPoint[0] = p.Scale, p.ZeroPoint
			f.store(&b, 0)
			v.codeRow(s, f, &b, position{}, 64)

			codes, want := make([]uint8, 64), make([]byte, 32)
			code(codes, weights, p, 15)
			pack(want, codes, 4)
			if !bytes.Equal(b.Packed, want) || b.Scales[0] != scale || b.ZeroPoints[0] != 7 {
				t.Fatalf("scale %g: codes\n%x, want\n%x", scale, b.Packed, want)
			}
		}
	}
}

// TestSearchLeavesIntegers has groups of which a search makes integers of more
// than 32 bits, before they are clipped: what is important lies close together, and
// the ends of the range, which are not important, far away; of the second one only
// the upper end.
func TestSearchLeavesIntegers(t *testing.T) {
	for _, c := range []struct {
		bitWidth            int
		weights, importance []float32
	}{{2,
		[]float32{-1.0000001, 3.277024e-07, 1.5000012, 3.5599436e-07, 0.4602245, 3.5645192e-07, -5.7499076e-08, 3.5766107e-07},
		[]float32{0, 0, 0, 0.00012207031, 0, 0.8591802, 0, 0.98944354},
	}, {8,
		[]float32{3.5312598e+08, 11717.187, -2.669142e+09, 3.53126e+08, -1.4395039e+07, -7872, 6.7619615e+10, -4905.9956},
		[]float32{0, 0, 0, 0, 0, 0.50185436, 0, 0.41219485},
	}} {
		for groups := range 40 {
			b := Block{
				Format: Format{c.bitWidth, FloatZero, ScaleFloat32, MeanSquares, Integer}, Rows: 1, Columns: 8 * (1 + groups), GroupSize: 8,
				Weights: rawFloat32(slices.Repeat(c.weights, 1+groups)), Importance: slices.Repeat(c.importance, 1+groups),
			}
			want := runKernel(Scalar, b, 0)
			if largest := slices.Max(c.weights) / want.scales.float32s()[0]; largest < 1<<31 {
				t.Fatalf("the largest integer is %g", largest)
			}
			for _, k := range All()[1:] {
				compare(t, k, b, 0, want)
			}
		}
	}
}

// TestSearchesOfOddGroups has batches of groups of which some have nothing to search, or need more
// than the plain formulas, in every lane of a batch.
func TestSearchesOfOddGroups(t *testing.T) {
	odd := []func(w float32) float32{
		func(float32) float32 { return 0 },
		func(float32) float32 { return -3 },
		func(w float32) float32 { return w * 1e-38 },
		func(w float32) float32 { return w * 1e37 },
		func(w float32) float32 { return 1e6 + w },
	}
	random := rand.New(rand.NewPCG(9, 9))
	for _, groupSize := range []int{8, 16, 32, 64} {
		for every := range 40 {
			if !isTried(random, 8) {
				continue
			}
			columns := groupSize * (1 + random.IntN(150))
			weights := make([]float32, columns)
			for i := range weights {
				group := i / groupSize
				weights[i] = float32(random.NormFloat64())
				if every > 0 && group%every == every-1 {
					weights[i] = odd[group/every%len(odd)](weights[i])
				}
			}
			for zero := IntegerZero; zero <= SymmetricZero; zero++ {
				b := Block{
					Format: Format{4, zero, ScaleFloat32, MeanSquares, Integer}, Rows: 1, Columns: columns, GroupSize: groupSize,
					Weights: rawFloat32(weights), Importance: randomImportance(random, columns),
				}
				want := runKernel(Scalar, b, 0)
				for _, k := range All()[1:] {
					compare(t, k, b, 0, want)
				}
			}
		}
	}
}
