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

// planesOf are those of 16 numbers.
func planesOf(p *float32) (first, second, third, fourth octets) {
	a, b := loadFloats(p, 0).ToBits().ReshapeToUint16s(), loadFloats(p, 4).ToBits().ReshapeToUint16s()
	c, d := loadFloats(p, 8).ToBits().ReshapeToUint16s(), loadFloats(p, 12).ToBits().ReshapeToUint16s()
	lower, lowerOfLast := a.ConcatEven(b).ReshapeToUint8s(), c.ConcatEven(d).ReshapeToUint8s()
	upper, upperOfLast := a.ConcatOdd(b).ReshapeToUint8s(), c.ConcatOdd(d).ReshapeToUint8s()
	return lower.ConcatEven(lowerOfLast), lower.ConcatOdd(lowerOfLast), upper.ConcatEven(upperOfLast), upper.ConcatOdd(upperOfLast)
}

// floatLevel is floatFormat.round, given what it needs as for tables.
func floatLevel(y floats, exponents words, low, high, smallestNormal, magic floats) floats {
	y = y.Max(low).Min(high)
	rounding := y.ToBits().And(exponents).BitsToFloat32().Max(smallestNormal).Mul(magic)
	return y.Add(rounding).Sub(rounding)
}

func (g *gridVectors) floatBounds() (exponents words, low, high, smallestNormal, magic floats) {
	return archsimd.BroadcastUint32x4(infinityBits), loadFloats(&g.low[0], 0), loadFloats(&g.high[0], 0), loadFloats(&g.smallestNormal[0], 0), loadFloats(&g.magic[0], 0)
}

// floatCode is floatFormat.code, but for the sign. Once magic is added, the last bits of a magnitude
// count the steps of its power of two, to which those of lesser powers come.
func floatCode(y floats, exponents words, high, smallestNormal, magic floats, shift ints) words {
	y = y.Abs().Min(high)
	power := y.ToBits().And(exponents).BitsToFloat32().Max(smallestNormal)
	rounding := power.Mul(magic)
	return y.Add(rounding).ToBits().Sub(rounding.ToBits()).Add(power.ToBits().Sub(smallestNormal.ToBits()).Shift(shift))
}

// coding is what finds the codes of a group: a power of two, and what coder gives.
type coding struct{ normal, factor, addend floats }

// of normalizes 8 weights, and divides them by the scale.
func (c coding) of(low, high floats) pair {
	return pair{low, high}.mul(both(c.normal)).mul(both(c.factor)).add(both(c.addend))
}

// encodeNEON normalizes the weights of each group, and gives their codes, one byte each.
func encodeNEON(codes *byte, grid *float32, weights *byte, groups, groupSize int, normal, inverse, offset *float32, t ElementType, kind gridKind) {
	g := (*gridVectors)(unsafe.Pointer(grid))
	at := 0
	for group := range groups {
		c := coding{repeat(normal, group), repeat(inverse, group), repeat(offset, group)}
		switch kind {
		case evenKind:
			g.evenCodes(codes, weights, at, groupSize, c, t)
		case tableKind:
			g.tableCodes(codes, weights, at, groupSize, c, t)
		default:
			g.floatCodes(codes, weights, at, groupSize, c, t)
		}
		at += groupSize
	}
}

func (g *gridVectors) evenCodes(codes, weights *byte, at, n int, c coding, t ElementType) {
	low, high, wide := both(loadFloats(&g.low[0], 0)), both(loadFloats(&g.high[0], 0)), newWidening()
	for end := at + n; at < end; at += 8 {
		y := c.of(loadElements(weights, at, t, wide)).max(low).min(high).round().sub(low)
		storeLower(y.shorten().TruncToUint8(), codes, at)
	}
}

func (g *gridVectors) tableCodes(codes, weights *byte, at, n int, c coding, t ElementType) {
	b1, b3, b5, b7, b9, b11, b13 := g.pairBounds()
	o0, o1, o2, o3 := planes(&g.oddBytes)
	inOrder, wide := loadOctets(&g.codeBytes[0], 0), newWidening()
	for end := at + n; at < end; at += 8 {
		y := c.of(loadElements(weights, at, t, wide))
		low, high := tablePlace(y.low, b1, b3, b5, b7, b9, b11, b13), tablePlace(y.high, b1, b3, b5, b7, b9, b11, b13)
		bound := pairOf(lookUp(placeOctets(low, high), o0, o1, o2, o3))
		low, high = nextPlace(low, y.low.Greater(bound.low)), nextPlace(high, y.high.Greater(bound.high))
		storeLower(inOrder.LookupOrZero(placeOctets(low, high)), codes, at)
	}
}

func (g *gridVectors) floatCodes(codes, weights *byte, at, n int, c coding, t ElementType) {
	exponents, _, high, smallestNormal, magic := g.floatBounds()
	sign, wide := archsimd.BroadcastUint32x4(signBit), newWidening()
	shift, signShift := archsimd.BroadcastInt32x4(-int32(g.shift[0])), archsimd.BroadcastInt32x4(-int32(g.signShift[0]))
	for end := at + n; at < end; at += 8 {
		y := c.of(loadElements(weights, at, t, wide))
		a, b := floatCode(y.low, exponents, high, smallestNormal, magic, shift), floatCode(y.high, exponents, high, smallestNormal, magic, shift)
		a, b = a.Or(y.low.ToBits().And(sign).Shift(signShift)), b.Or(y.high.ToBits().And(sign).Shift(signShift))
		storeLower(a.ReshapeToUint16s().ConcatEven(b.ReshapeToUint16s()).TruncToUint8(), codes, at)
	}
}

// encodeOf is encodeNEON for one type of weights, for all kinds of levels.
func encodeOf(t ElementType) (kinds [gridKinds]func(*byte, *float32, *byte, int, int, *float32, *float32, *float32)) {
	for kind := range gridKinds {
		kinds[kind] = func(codes *byte, grid *float32, weights *byte, groups, groupSize int, normal, inverse, offset *float32) {
			encodeNEON(codes, grid, weights, groups, groupSize, normal, inverse, offset, t, kind)
		}
	}
	return kinds
}
