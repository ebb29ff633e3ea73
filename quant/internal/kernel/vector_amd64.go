package kernel

import "sync"

//go:generate go -C _gen run . -out ../vector_amd64.s -stubs ../stubs_amd64.go -pkg kernel

// runWeights is how many weights a vector kernel takes through all its steps
// before the next ones: 4 KiB of float32, as many of the next run and the codes stay in L1.
const (
	runWeights = 1024
	runGroups  = runWeights / 8
)

// vectorSet is one instruction set's functions, by ElementType: Float32,
// Float16, BFloat16. All work on a run of groups of equal size, a multiple of 8.
type vectorSet struct {
	ranges [3]func(weights *byte, groups, groupSize int, lo, hi *float32) (nonFinite bool)
	code   [3]func(weights *byte, groups, groupSize int, inverse, zeroPoint *float32, maxCode float32, codes *byte, ahead int)
	sums   [3]func(weights *byte, groups, groupSize int, scale, zeroPoint *float32, codes *byte, sums *float64)
	decode func(codes *byte, groups, groupSize int, scale, zeroPoint, weights *byte)
}

var avx2 = vectorSet{
	ranges: [3]func(*byte, int, int, *float32, *float32) bool{rangesFloat32AVX2, rangesFloat16AVX2, rangesBFloat16AVX2},
	code:   [3]func(*byte, int, int, *float32, *float32, float32, *byte, int){codeFloat32AVX2, codeFloat16AVX2, codeBFloat16AVX2},
	sums:   [3]func(*byte, int, int, *float32, *float32, *byte, *float64){sumsFloat32AVX2, sumsFloat16AVX2, sumsBFloat16AVX2},
	decode: decodeAVX2,
}

var avx512 = vectorSet{
	ranges: [3]func(*byte, int, int, *float32, *float32) bool{rangesFloat32AVX512, rangesFloat16AVX512, rangesBFloat16AVX512},
	code:   [3]func(*byte, int, int, *float32, *float32, float32, *byte, int){codeFloat32AVX512, codeFloat16AVX512, codeBFloat16AVX512},
	sums:   [3]func(*byte, int, int, *float32, *float32, *byte, *float64){sumsFloat32AVX512, sumsFloat16AVX512, sumsBFloat16AVX512},
	decode: decodeAVX512,
}

// packers and unpackers by bit width; at 8 bits codes are bytes already.
var (
	packers   = [...]func(packed, codes *byte, n int){2: pack2BMI2, 3: pack3BMI2, 4: pack4BMI2, 5: pack5BMI2, 6: pack6BMI2}
	unpackers = [...]func(codes, packed *byte, n int){2: unpack2BMI2, 3: unpack3BMI2, 4: unpack4BMI2, 5: unpack5BMI2, 6: unpack6BMI2}
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
	lo, hi                       [runGroups]float32
	scales, inverses, zeroPoints [runGroups]float32
	runCodes                     [runWeights]uint8
}

// scratches are used again: clearing one costs as much as a run.
var scratches = sync.Pool{New: func() any { return new(vectorScratch) }}

func takeScratch() *vectorScratch {
	s := scratches.Get().(*vectorScratch)
	s.lanes = laneSums{}
	return s
}

// quantize has the results of quantizeScalar.
func (v *vectorSet) quantize(b *Block) Fault {
	b.check()
	if b.Type == Float64 {
		return quantizeScalar(b)
	}
	s := takeScratch()
	defer scratches.Put(s)
	joined := *b
	if b.Columns%b.GroupSize == 0 && b.GroupSize%8 == 0 {
		joined.Rows, joined.Columns = 1, b.Rows*b.Columns // the same bytes
	}
	for row := range joined.Rows {
		if fault := v.quantizeRow(s, &joined, row); fault.Kind != NoFault {
			return fault
		}
	}
	s.storeSums(b)
	return Fault{}
}

func (v *vectorSet) quantizeRow(s *vectorScratch, b *Block, row int) (fault Fault) {
	for column := 0; column < b.Columns && fault.Kind == NoFault; {
		groups := min(runWeights, b.Columns-column) / b.GroupSize
		if groups == 0 || b.GroupSize%8 != 0 {
			fault = v.quantizeGroup(s, b, row, column)
			column += b.GroupSize
		} else {
			fault = v.quantizeRun(s, b, row, column, groups)
			column += groups * b.GroupSize
		}
	}
	return fault
}

// quantizeRun codes some whole groups of a row, beginning at a column.
func (v *vectorSet) quantizeRun(s *vectorScratch, b *Block, row, column, groups int) Fault {
	g := b.group(row, column)
	finite := !v.ranges[b.Type](&g.weights[0], groups, b.GroupSize, &s.lo[0], &s.hi[0])
	if !finite || !s.fit(groups, b.Format) {
		for k := range groups {
			if fault := s.quantizeGroup(b, row, column+k*b.GroupSize); fault.Kind != NoFault {
				return fault
			}
		}
		return Fault{}
	}
	copy(b.Scales[g.index:g.index+groups], s.scales[:])
	copy(b.ZeroPoints[g.index:g.index+groups], s.zeroPoints[:])
	v.codeRun(s, b, &g.weights[0], &g.packed[0], groups, b.GroupSize)
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
		s.scales[k], s.inverses[k], s.zeroPoints[k] = p.scale, p.inverse, p.zeroPoint
	}
	return true
}

// codeRun writes the codes of groups whose parameters are known.
func (v *vectorSet) codeRun(s *vectorScratch, b *Block, weights, packed *byte, groups, groupSize int) {
	codes := &s.runCodes[0]
	if b.BitWidth == 8 {
		codes = packed
	}
	ahead := runWeights * b.Type.Size() // the next run
	v.code[b.Type](weights, groups, groupSize, &s.inverses[0], &s.zeroPoints[0], float32(b.MaxCode()), codes, ahead)
	if b.BitWidth != 8 {
		packers[b.BitWidth](packed, codes, groups*groupSize)
	}
	if b.Sums != nil {
		v.sums[b.Type](weights, groups, groupSize, &s.scales[0], &s.zeroPoints[0], codes, &s.lanes.error[0])
	}
}

// quantizeGroup codes one group of any size: all but its last weights, fewer
// than 8, with vectors.
func (v *vectorSet) quantizeGroup(s *vectorScratch, b *Block, row, column int) Fault {
	g := b.group(row, column)
	size := b.Type.Size()
	n := len(g.weights) / size
	whole := n &^ 7
	rest := s.weights[:n-whole]
	load(rest, g.weights[whole*size:], b.Type)
	plain := whole > 0 && !v.ranges[b.Type](&g.weights[0], 1, whole, &s.lo[0], &s.hi[0])
	for _, w := range rest {
		plain = plain && isFinite(w)
		s.lo[0], s.hi[0] = min(s.lo[0], w), max(s.hi[0], w)
	}
	if !plain {
		return s.quantizeGroup(b, row, column)
	}
	if !s.fit(1, b.Format) {
		return s.quantizeGroup(b, row, column)
	}
	p := parameters{scale: s.scales[0], inverse: s.inverses[0], zeroPoint: s.zeroPoints[0]}
	for first := 0; first < whole; first += runWeights {
		v.codeRun(s, b, &g.weights[first*size], &g.packed[RowBytes(first, b.BitWidth)], 1, min(runWeights, whole-first))
	}
	s.codeTile(g.packed[RowBytes(whole, b.BitWidth):], rest, p, b)
	b.Scales[g.index], b.ZeroPoints[g.index] = p.scale, p.zeroPoint
	return Fault{}
}

// dequantize has the results of dequantizeScalar.
func (v *vectorSet) dequantize(b *CodedBlock) Fault {
	b.check()
	if b.Type != Float32 {
		return dequantizeScalar(b)
	}
	s := takeScratch()
	defer scratches.Put(s)
	joined := *b
	if b.Columns%b.GroupSize == 0 && b.GroupSize%8 == 0 {
		joined.Rows, joined.Columns = 1, b.Rows*b.Columns
	}
	for row := range joined.Rows {
		v.dequantizeRow(s, &joined, row)
	}
	return Fault{}
}

func (v *vectorSet) dequantizeRow(s *vectorScratch, b *CodedBlock, row int) {
	for column := 0; column < b.Columns; {
		g := b.group(row, column)
		groups, size := min(runWeights, b.Columns-column)/b.GroupSize, b.GroupSize
		if groups == 0 || b.GroupSize%8 != 0 {
			// One group, or a part of it, of which fewer than 8 are left over.
			n := min(b.GroupSize, b.Columns-column)
			for first := 0; first < n&^7; first += runWeights {
				v.decodeRun(s, b, &g.packed[RowBytes(first, b.BitWidth)], &g.weights[first*4], 1, min(runWeights, n&^7-first), g.index)
			}
			s.decodeTile(g.weights[n&^7*4:], g.packed[RowBytes(n&^7, b.BitWidth):], n&7, g.index, b)
			column += n
			continue
		}
		v.decodeRun(s, b, &g.packed[0], &g.weights[0], groups, size, g.index)
		column += groups * size
	}
}

func (v *vectorSet) decodeRun(s *vectorScratch, b *CodedBlock, packed, weights *byte, groups, groupSize, index int) {
	codes := packed
	if b.BitWidth != 8 {
		codes = &s.runCodes[0]
		unpackers[b.BitWidth](codes, packed, groups*groupSize)
	}
	v.decode(codes, groups, groupSize, &b.Scales[4*index], &b.ZeroPoints[4*index], weights)
}
