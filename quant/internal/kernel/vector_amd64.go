package kernel

import (
	"sync"
	"unsafe"
)

//go:generate go -C _gen run . -out ../vector_amd64.s -stubs ../stubs_amd64.go -pkg kernel

// A vector kernel takes a run of weights, which stays in the first-level cache,
// through all its steps before the next one. A later run is prefetched into the
// second level, as the first one has too few outstanding misses to overlap all
// reading with computing.
const (
	runBytes  = 4 << 10
	runsAhead = 4
	// minStreamed is the least size of an output that is worth streaming.
	minStreamed = 4 << 10
	maxWeights  = runBytes / 2 // in a run
	maxGroups   = maxWeights / 8
)

// runWeights is how many weights of a type a run may have.
func runWeights(t ElementType) int { return runBytes / t.Size() }

// vectorSet is one instruction set's functions, by ElementType: Float32,
// Float16, BFloat16. All work on a run of groups of equal size, a multiple of 8.
type vectorSet struct {
	ranges [3]func(weights *byte, groups, groupSize int, lo, hi *float32) (nonFinite bool)
	code   [3]func(weights *byte, groups, groupSize int, inverse, zeroPoint *float32, maxCode float32, codes *byte, ahead int)
	sums   [3]func(weights *byte, groups, groupSize int, scale, zeroPoint *float32, codes *byte, sums *float64)
	decode func(codes *byte, groups, groupSize int, scale, zeroPoint, weights *byte)
	// stepSums, stepSumsWeighted and hqqSums are the inner loops of searches.
	stepSums         func(lanes, tile *float32, n int, maxCode float32)
	stepSumsWeighted func(lanes, tile, importance *float32, n int, maxCode float32)
	hqqSums          func(lanes, tile *float32, n int, maxCode float32)
	// together packs by bit width, where that is faster than one word after the
	// other; n is a multiple of atATime.
	together [5]func(packed, codes *byte, n int)
	atATime  int
}

var avx2 = vectorSet{
	ranges:   [3]func(*byte, int, int, *float32, *float32) bool{rangesFloat32AVX2, rangesFloat16AVX2, rangesBFloat16AVX2},
	code:     [3]func(*byte, int, int, *float32, *float32, float32, *byte, int){codeFloat32AVX2, codeFloat16AVX2, codeBFloat16AVX2},
	sums:     [3]func(*byte, int, int, *float32, *float32, *byte, *float64){sumsFloat32AVX2, sumsFloat16AVX2, sumsBFloat16AVX2},
	decode:   decodeAVX2,
	stepSums: stepSumsAVX2, stepSumsWeighted: stepSumsWeightedAVX2, hqqSums: hqqSumsAVX2,
	together: [5]func(*byte, *byte, int){2: pack2AVX2, 4: pack4AVX2},
	atATime:  32,
}

var avx512 = vectorSet{
	ranges:   [3]func(*byte, int, int, *float32, *float32) bool{rangesFloat32AVX512, rangesFloat16AVX512, rangesBFloat16AVX512},
	code:     [3]func(*byte, int, int, *float32, *float32, float32, *byte, int){codeFloat32AVX512, codeFloat16AVX512, codeBFloat16AVX512},
	sums:     [3]func(*byte, int, int, *float32, *float32, *byte, *float64){sumsFloat32AVX512, sumsFloat16AVX512, sumsBFloat16AVX512},
	decode:   decodeAVX512,
	stepSums: stepSumsAVX512, stepSumsWeighted: stepSumsWeightedAVX512, hqqSums: hqqSumsAVX512,
	together: [5]func(*byte, *byte, int){2: pack2AVX512, 4: pack4AVX512},
	atATime:  64,
}

// packers and unpackers by bit width; at 8 bits codes are bytes already.
var (
	packers   = [...]func(packed, codes *byte, n int){2: pack2, 3: pack3, 4: pack4, 5: pack5, 6: pack6}
	unpackers = [...]func(codes, packed *byte, n int){2: unpack2, 3: unpack3, 4: unpack4, 5: unpack5, 6: unpack6}
)

// fitters choose the parameters of n groups, rounded up to 8, by ZeroPoint and
// ScaleDtype. plain is false if the formulas do not apply to one of them.
var fitters = [3][3]func(lo, hi *float32, n int, maxCode, half float32, scale, inverse, zeroPoint *float32) (plain bool){
	IntegerZero:   {fitIntegerFloat32, fitIntegerFloat16, fitIntegerBFloat16},
	FloatZero:     {fitFloatFloat32, fitFloatFloat16, fitFloatBFloat16},
	SymmetricZero: {fitSymmetricFloat32, fitSymmetricFloat16, fitSymmetricBFloat16},
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
	s.lanes, s.stop = laneSums{}, nil
	return s
}

// release ends a call, whose outputs others may see from now on.
func (s *vectorScratch) release() {
	fence()
	scratches.Put(s)
}

// quantize has the results of quantizeScalar.
func (v *vectorSet) quantize(b *Block) Fault {
	b.check()
	if b.Method.searches() {
		return v.quantizeSearched(*b)
	}
	if b.Type == Float64 {
		return quantizeScalar(b)
	}
	s := takeScratch()
	defer s.release()
	l := b.layout().joined()
	for row := range l.rows {
		if fault := v.quantizeRow(s, b, l.row(row), l.columns); fault.Kind != NoFault {
			return fault
		}
	}
	s.storeSums(b)
	return Fault{}
}

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

// quantizeRow codes a row of so many columns.
func (v *vectorSet) quantizeRow(s *vectorScratch, b *Block, at position, columns int) (fault Fault) {
	for left := columns; left > 0 && fault.Kind == NoFault; {
		n, groups := nextRun(b.GroupSize, left, b.Type)
		if isRun(n, groups, b.GroupSize, b.Type) {
			fault = v.quantizeRun(s, b, at, groups)
		} else {
			fault = v.quantizeGroup(s, b, at, n)
		}
		at = at.after(n, groups, b.BitWidth)
		left -= n
	}
	return fault
}

// quantizeRun codes some whole groups.
func (v *vectorSet) quantizeRun(s *vectorScratch, b *Block, at position, groups int) Fault {
	weights, packed := &b.Weights[at.weight*b.Type.Size()], &b.Packed[at.packed]
	finite := !v.ranges[b.Type](weights, groups, b.GroupSize, &s.lo[0], &s.hi[0])
	if !finite || !s.fit(groups, b.Format) {
		for range groups {
			if fault := s.quantizeGroup(b, at, b.GroupSize); fault.Kind != NoFault {
				return fault
			}
			at = at.after(b.GroupSize, 1, b.BitWidth)
		}
		return Fault{}
	}
	copy(b.Scales[at.group:at.group+groups], s.scales[:])
	copy(b.ZeroPoints[at.group:at.group+groups], s.zeroPoints[:])
	v.codeRun(s, b, weights, packed, groups, b.GroupSize)
	return Fault{}
}

// fit chooses the parameters of groups whose ranges are known. It returns
// false if one of them needs more than the plain formulas.
func (s *vectorScratch) fit(groups int, f Format) bool {
	if fitters[f.ZeroPoint][f.ScaleDtype](&s.lo[0], &s.hi[0], groups, float32(f.MaxCode()), half(f), &s.scales[0], &s.inverses[0], &s.zeroPoints[0]) {
		return true
	}
	for k := range groups {
		p, ok := fit(s.lo[k], s.hi[k], f)
		if !ok || p.extreme {
			return false
		}
		s.scales[k], s.inverses[k], s.zeroPoints[k] = p.Scale, p.inverse, p.ZeroPoint
	}
	return true
}

// codeRun writes the codes of groups whose parameters are known.
func (v *vectorSet) codeRun(s *vectorScratch, b *Block, weights, packed *byte, groups, groupSize int) {
	codes := s.runCodes[:groups*groupSize]
	v.code[b.Type](weights, groups, groupSize, &s.inverses[0], &s.zeroPoints[0], float32(b.MaxCode()), &codes[0], runsAhead*runBytes)
	to := unsafe.Slice(packed, len(codes)/8*b.BitWidth)
	if len(b.Packed) < minStreamed {
		prefetch(uintptr(unsafe.Pointer(packed))+uintptr(runsAhead*len(to)), len(to))
		v.pack(to, codes, b.BitWidth)
	} else if b.BitWidth == 8 {
		streamTo(to, codes)
	} else {
		v.pack(s.runPacked[:], codes, b.BitWidth)
		streamTo(to, s.runPacked[:len(to)])
	}
	if b.Sums != nil {
		v.sums[b.Type](weights, groups, groupSize, &s.scales[0], &s.zeroPoints[0], &codes[0], &s.lanes.error[0])
	}
}

// streamTo copies bytes, whole lines by streaming: reading them first, as
// ordinary stores do, would take a part of the memory's bandwidth.
func streamTo(to, from []byte) {
	const line = 64
	head := int(-uintptr(unsafe.Pointer(&to[0])) % line)
	whole := (len(to) - head) / line * line
	if whole <= 0 {
		copy(to, from)
		return
	}
	copy(to[:head], from)
	stream(&to[head], &from[head], whole)
	copy(to[head+whole:], from[head+whole:])
}

// pack packs codes, whose number is a multiple of 8.
func (v *vectorSet) pack(to, codes []uint8, bitWidth int) {
	if bitWidth == 8 {
		copy(to, codes)
		return
	}
	if bitWidth < len(v.together) && v.together[bitWidth] != nil {
		whole := len(codes) / v.atATime * v.atATime
		v.together[bitWidth](&to[0], unsafe.SliceData(codes), whole)
		to, codes = to[RowBytes(whole, bitWidth):], codes[whole:]
	}
	if len(codes) > 0 {
		packers[bitWidth](&to[0], &codes[0], len(codes))
	}
}

// quantizeGroup codes one group of n weights.
func (v *vectorSet) quantizeGroup(s *vectorScratch, b *Block, at position, n int) Fault {
	weights := b.Weights[at.weight*b.Type.Size():][:n*b.Type.Size()]
	if !v.rangeOf(s, weights, b.Type) || !s.fit(1, b.Format) {
		return s.quantizeGroup(b, at, n)
	}
	p := Parameters{Scale: s.scales[0], inverse: s.inverses[0], ZeroPoint: s.zeroPoints[0]}
	v.codeGroup(s, b, weights, b.Packed[at.packed:][:RowBytes(n, b.BitWidth)], p)
	b.Scales[at.group], b.ZeroPoints[at.group] = p.Scale, p.ZeroPoint
	return Fault{}
}

// rangeOf finds lo[0] and hi[0]: of all but the last weights, fewer than 8, with
// vectors. It returns false if a weight is not finite, or if all are too few.
func (v *vectorSet) rangeOf(s *vectorScratch, weights []byte, t ElementType) bool {
	n := len(weights) / t.Size()
	whole := n &^ 7
	finite := whole > 0 && !v.ranges[t](&weights[0], 1, whole, &s.lo[0], &s.hi[0])
	rest := s.weights[:n-whole]
	load(rest, weights[whole*t.Size():], t)
	for _, w := range rest {
		finite = finite && isFinite(w)
		s.lo[0], s.hi[0] = min(s.lo[0], w), max(s.hi[0], w)
	}
	return finite
}

// codeGroup codes one group, or a part of it, likewise. p is plain.
func (v *vectorSet) codeGroup(s *vectorScratch, b *Block, weights, packed []byte, p Parameters) {
	size := b.Type.Size()
	n := len(weights) / size
	whole := n &^ 7
	s.scales[0], s.inverses[0], s.zeroPoints[0] = p.Scale, p.inverse, p.ZeroPoint
	for first := 0; first < whole; first += runWeights(b.Type) {
		v.codeRun(s, b, &weights[first*size], &packed[RowBytes(first, b.BitWidth)], 1, min(runWeights(b.Type), whole-first))
	}
	rest := s.weights[:n-whole]
	load(rest, weights[whole*size:], b.Type)
	s.codeTile(packed[RowBytes(whole, b.BitWidth):], rest, p, b)
}

// rangeIn has the results of the reference's rangeOf.
func (v *vectorSet) rangeIn(s *vectorScratch, weights []byte, t ElementType) (lo, hi float32, fault Fault) {
	if t == Float64 || !v.rangeOf(s, weights, t) {
		return s.scratch.rangeOf(weights, t)
	}
	return s.lo[0], s.hi[0], Fault{}
}

// rangePart has the results of rangeScalar.
func (v *vectorSet) rangePart(b *Block) (lo, hi float32, fault Fault) {
	if b.Type == Float64 {
		return rangeScalar(b)
	}
	s := takeScratch()
	defer s.release()
	return v.rangeIn(s, b.Weights, b.Type)
}

// codePart has the results of codeScalar.
func (v *vectorSet) codePart(b *Block, p Parameters) {
	if b.Type == Float64 || p.extreme {
		codeScalar(b, p)
		return
	}
	s := takeScratch()
	defer s.release()
	v.codeGroup(s, b, b.Weights, b.Packed, p)
	s.storeSums(b)
}

// dequantize has the results of dequantizeScalar.
func (v *vectorSet) dequantize(b *CodedBlock) Fault {
	b.check()
	if b.Type != Float32 {
		return dequantizeScalar(b)
	}
	s := takeScratch()
	defer s.release()
	l := b.layout().joined()
	for row := range l.rows {
		v.dequantizeRow(s, b, l.row(row), l.columns)
	}
	return Fault{}
}

// dequantizeRow decodes a row of so many columns.
func (v *vectorSet) dequantizeRow(s *vectorScratch, b *CodedBlock, at position, columns int) {
	for left := columns; left > 0; {
		n, groups := nextRun(b.GroupSize, left, b.Type)
		if isRun(n, groups, b.GroupSize, b.Type) {
			v.decodeRun(s, b, at, 0, groups, b.GroupSize)
		} else {
			v.dequantizeGroup(s, b, at, n)
		}
		at = at.after(n, groups, b.BitWidth)
		left -= n
	}
}

// dequantizeGroup decodes one group of n weights: all but its last ones, fewer
// than 8, with vectors.
func (v *vectorSet) dequantizeGroup(s *vectorScratch, b *CodedBlock, at position, n int) {
	whole := n &^ 7
	for first := 0; first < whole; first += runWeights(b.Type) {
		v.decodeRun(s, b, at, first, 1, min(runWeights(b.Type), whole-first))
	}
	s.decodeTile(b.Weights[(at.weight+whole)*4:], b.Packed[at.packed+RowBytes(whole, b.BitWidth):], n-whole, at.group, b)
}

// decodeRun decodes groups that begin some weights behind a position.
func (v *vectorSet) decodeRun(s *vectorScratch, b *CodedBlock, at position, first, groups, groupSize int) {
	codes := &b.Packed[at.packed+RowBytes(first, b.BitWidth)]
	if b.BitWidth != 8 {
		unpackers[b.BitWidth](&s.runCodes[0], codes, groups*groupSize)
		codes = &s.runCodes[0]
	}
	v.decode(codes, groups, groupSize, &b.Scales[4*at.group], &b.ZeroPoints[4*at.group], &b.Weights[4*(at.weight+first)])
}
