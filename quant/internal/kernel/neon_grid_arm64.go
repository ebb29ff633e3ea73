//go:build goexperiment.simd && go1.27

package kernel

import (
	"simd/archsimd"
	"unsafe"
)

// The level nearest to y is found in a table by bisection. All that it needs is given, since it
// stays in registers only where it is a variable of the loop's function.

// tablePlace is the place among pairs of levels.
func tablePlace(y, first, third, fifth, seventh, ninth, eleventh, thirteenth floats) words {
	upper := y.Greater(seventh)
	second := y.Greater(eleventh.IfElse(upper, third))
	bound := thirteenth.IfElse(second, ninth).IfElse(upper, fifth.IfElse(second, first))
	place := upper.ToInt32x4().ToBits().ShiftAllRight(31)
	return nextPlace(nextPlace(place, second), y.Greater(bound))
}

// nextPlace is that in the half where y is.
func nextPlace(place words, upper archsimd.Mask32x4) words {
	return place.Add(place).Sub(upper.ToInt32x4().ToBits())
}

// placeOctets are 8 places, in each half.
func placeOctets(a, b words) octets {
	v := a.ReshapeToUint16s().ConcatEven(b.ReshapeToUint16s()).ReshapeToUint8s()
	return v.ConcatEven(v)
}

// lookUp gives the numbers at 8 places, of whose bytes the lowest come first.
func lookUp(places, first, second, third, fourth octets) (v, w floats) {
	lower := first.LookupOrZero(places).InterleaveLo(second.LookupOrZero(places)).ReshapeToUint16s()
	upper := third.LookupOrZero(places).InterleaveLo(fourth.LookupOrZero(places)).ReshapeToUint16s()
	return lower.InterleaveLo(upper).ReshapeToUint32s().BitsToFloat32(), lower.InterleaveHi(upper).ReshapeToUint32s().BitsToFloat32()
}

// pairBounds are the bounds between pairs of levels.
func (g *gridVectors) pairBounds() (first, third, fifth, seventh, ninth, eleventh, thirteenth floats) {
	seventh, third, eleventh = loadFloats(&g.eighth[0], 0), loadFloats(&g.fourth[0], 0), loadFloats(&g.twelfth[0], 0)
	first, fifth, ninth, thirteenth = repeat(&g.thirds[0], 0), repeat(&g.thirds[0], 7), repeat(&g.thirds[0], 6), repeat(&g.thirds[0], 5)
	return first, third, fifth, seventh, ninth, eleventh, thirteenth
}

func planes(p *[4][16]uint8) (first, second, third, fourth octets) {
	return loadOctets(&p[0][0], 0), loadOctets(&p[1][0], 0), loadOctets(&p[2][0], 0), loadOctets(&p[3][0], 0)
}

// floatLevel is floatFormat.round.
func (g *gridVectors) floatLevel(y floats, exponents words) floats {
	y = y.Max(loadFloats(&g.low[0], 0)).Min(loadFloats(&g.high[0], 0))
	magic := y.ToBits().And(exponents).BitsToFloat32().Max(loadFloats(&g.smallestNormal[0], 0)).Mul(loadFloats(&g.magic[0], 0))
	return y.Add(magic).Sub(magic)
}

// floatCode is floatFormat.code.
func (g *gridVectors) floatCode(y floats, exponents, sign words, shift, signShift ints) words {
	signs := y.ToBits().And(sign).Shift(signShift)
	v := g.floatLevel(y, exponents).Abs()
	small := v.Mul(loadFloats(&g.perSubnormal[0], 0)).ConvertToUint32()
	normal := v.ToBits().Shift(shift).Sub(archsimd.LoadUint32x4Array((*[4]uint32)(g.bias[:4])))
	return small.IfElse(v.Less(loadFloats(&g.smallestNormal[0], 0)), normal).Or(signs)
}

// codeLevelsNEON gives the codes of each group, one byte each.
func codeLevelsNEON(codes *byte, grid, weights *float32, groups, groupSize int, inverse, offset *float32, kind gridKind) {
	g := (*gridVectors)(unsafe.Pointer(grid))
	at := 0
	for group := range groups {
		factor, addend := repeat(inverse, group), repeat(offset, group)
		switch kind {
		case evenKind:
			g.evenCodes(codes, weights, at, groupSize, factor, addend)
		case tableKind:
			g.tableCodes(codes, weights, at, groupSize, factor, addend)
		default:
			g.floatCodes(codes, weights, at, groupSize, factor, addend)
		}
		at += groupSize
	}
}

func (g *gridVectors) evenCodes(codes *byte, weights *float32, at, n int, factor, addend floats) {
	low, high := both(loadFloats(&g.low[0], 0)), both(loadFloats(&g.high[0], 0))
	for end := at + n; at < end; at += 8 {
		y := loadPair(weights, at).mul(both(factor)).add(both(addend)).max(low).min(high).round().sub(low)
		storeLower(y.shorten().TruncToUint8(), codes, at)
	}
}

func (g *gridVectors) tableCodes(codes *byte, weights *float32, at, n int, factor, addend floats) {
	b1, b3, b5, b7, b9, b11, b13 := g.pairBounds()
	o0, o1, o2, o3 := planes(&g.oddBytes)
	inOrder := loadOctets(&g.codeBytes[0], 0)
	for end := at + n; at < end; at += 8 {
		y := loadPair(weights, at).mul(both(factor)).add(both(addend))
		low, high := tablePlace(y.low, b1, b3, b5, b7, b9, b11, b13), tablePlace(y.high, b1, b3, b5, b7, b9, b11, b13)
		bound := pairOf(lookUp(placeOctets(low, high), o0, o1, o2, o3))
		low, high = nextPlace(low, y.low.Greater(bound.low)), nextPlace(high, y.high.Greater(bound.high))
		storeLower(inOrder.LookupOrZero(placeOctets(low, high)), codes, at)
	}
}

func (g *gridVectors) floatCodes(codes *byte, weights *float32, at, n int, factor, addend floats) {
	exponents, sign := archsimd.BroadcastUint32x4(infinityBits), archsimd.BroadcastUint32x4(signBit)
	shift, signShift := archsimd.BroadcastInt32x4(-int32(g.shift[0])), archsimd.BroadcastInt32x4(-int32(g.signShift[0]))
	for end := at + n; at < end; at += 8 {
		y := loadPair(weights, at).mul(both(factor)).add(both(addend))
		a, b := g.floatCode(y.low, exponents, sign, shift, signShift), g.floatCode(y.high, exponents, sign, shift, signShift)
		storeLower(a.ReshapeToUint16s().ConcatEven(b.ReshapeToUint16s()).TruncToUint8(), codes, at)
	}
}

func codeLevelsKind(kind gridKind) func(*byte, *float32, *float32, int, int, *float32, *float32) {
	return func(codes *byte, grid, weights *float32, groups, groupSize int, inverse, offset *float32) {
		codeLevelsNEON(codes, grid, weights, groups, groupSize, inverse, offset, kind)
	}
}
