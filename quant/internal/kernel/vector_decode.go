package kernel

import (
	"math"
	"slices"
	"unsafe"
)

// dequantize has the results of dequantizeScalar.
func (v *vectorSet) dequantize(b *CodedBlock) Fault {
	b.check()
	if b.Type != Float32 {
		return dequantizeScalar(b)
	}
	b.Levels = ownLevels(b.Levels)
	s := takeScratch()
	defer v.release(s)
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

// noZeroPoints are those of a run where all are 0.
var noZeroPoints [maxGroups]float32

// decodeRun decodes groups that begin some weights behind a position.
func (v *vectorSet) decodeRun(s *vectorScratch, b *CodedBlock, at position, first, groups, groupSize int) {
	codes := &b.Packed[at.packed+RowBytes(first, b.BitWidth)]
	if b.BitWidth != 8 {
		v.unpack[b.BitWidth](&s.runCodes[0], codes, groups*groupSize)
		codes = &s.runCodes[0]
	}
	zeroPoints := bytesOf(noZeroPoints[:])
	if b.ZeroPoints != nil {
		zeroPoints = &b.ZeroPoints[4*at.group]
	}
	v.decodeCodes(codes, b.Levels, groups, groupSize, &b.Scales[4*at.group], zeroPoints, &b.Weights[4*(at.weight+first)])
}

// decodeCodes decodes groups of a multiple of 8 codes, one byte each.
func (v *vectorSet) decodeCodes(codes *byte, levels []float32, groups, groupSize int, scale, zeroPoint, weights *byte) {
	switch {
	case levels == nil:
		v.decode(codes, groups, groupSize, scale, zeroPoint, weights)
	case len(levels) == 16:
		v.decodeLevels(codes, &levels[0], groups, groupSize, scale, zeroPoint, weights)
	case &levels[0] == &e4m3Levels[0]:
		v.decodeE4M3(codes, groups, groupSize, scale, zeroPoint, weights)
	default:
		n := groups * groupSize
		decodeGroups(float32s(weights, n), unsafe.Slice(codes, n), levels, float32s(scale, groups), float32s(zeroPoint, groups))
	}
}

// float32s are n numbers that begin at an address.
func float32s(first *byte, n int) []float32 {
	return unsafe.Slice((*float32)(unsafe.Pointer(first)), n)
}

// ownLevels are levels, or those of E4M3 where they are the same, which are known by their
// address.
func ownLevels(levels []float32) []float32 {
	if slices.EqualFunc(levels, e4m3Levels, func(a, b float32) bool { return math.Float32bits(a) == math.Float32bits(b) }) {
		return e4m3Levels
	}
	return levels
}
