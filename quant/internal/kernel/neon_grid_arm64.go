//go:build goexperiment.simd && go1.27

package kernel

import (
	"simd/archsimd"
	"unsafe"
)

// gridPlaces make the places of bytes of those of vectors, to look up tables of them.
var gridPlaces = struct{ fours, bytes, half, three, seven [4]uint32 }{
	[4]uint32{0x04040404, 0x04040404, 0x04040404, 0x04040404}, [4]uint32{0x03020100, 0x03020100, 0x03020100, 0x03020100},
	[4]uint32{0x10101010, 0x10101010, 0x10101010, 0x10101010}, [4]uint32{3, 3, 3, 3}, [4]uint32{7, 7, 7, 7},
}

func loadWords(p *[4]uint32) words { return archsimd.LoadUint32x4Array(p) }

// lookUp4 and lookUp8 give the words of a table at places modulo its length.
func lookUp4(table *uint32, places words) words {
	c := &gridPlaces
	at := places.And(loadWords(&c.three)).Mul(loadWords(&c.fours)).Add(loadWords(&c.bytes)).ReshapeToUint8s()
	return loadOctets((*byte)(unsafe.Pointer(table)), 0).LookupOrZero(at).ReshapeToUint32s()
}

func lookUp8(table *uint32, places words) words {
	c := &gridPlaces
	at := places.And(loadWords(&c.seven)).Mul(loadWords(&c.fours)).Add(loadWords(&c.bytes))
	lower := loadOctets((*byte)(unsafe.Pointer(table)), 0).LookupOrZero(at.ReshapeToUint8s())
	at = at.ReshapeToUint8s().Sub(loadWords(&c.half).ReshapeToUint8s()).ReshapeToUint32s()
	upper := loadOctets((*byte)(unsafe.Pointer(table)), 16).LookupOrZero(at.ReshapeToUint8s())
	return lower.Or(upper).ReshapeToUint32s()
}

func bitsOf(v *vector8) *uint32 { return (*uint32)(unsafe.Pointer(v)) }

// The level nearest to y is found in a table in steps, each of which is short enough for the
// compiler to inline it into loops. A place is minus that in the table.

// tableQuarter is the place among quarters, and whether that is in the upper half.
func (g *gridVectors) tableQuarter(y floats) (place words, upper archsimd.Mask32x4) {
	upper = y.Greater(loadFloats(&g.eighth[0], 0))
	bound := loadFloats(&g.twelfth[0], 0).IfElse(upper, loadFloats(&g.fourth[0], 0))
	half := upper.ToInt32x4().ToBits()
	return half.Add(half).Add(y.Greater(bound).ToInt32x4().ToBits()), upper
}

// tablePlace is the place, given that among quarters.
func (g *gridVectors) tablePlace(y floats, place words) words {
	bound := lookUp4(bitsOf(&g.thirds), place).BitsToFloat32()
	place = place.Add(place).Add(y.Greater(bound).ToInt32x4().ToBits())
	bound = lookUp8(bitsOf(&g.odds), place).BitsToFloat32()
	return place.Add(place).Add(y.Greater(bound).ToInt32x4().ToBits())
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

// tableCodes takes 4 weights at a time.
func (g *gridVectors) tableCodes(codes *byte, weights *float32, at, n int, factor, addend floats) {
	for end := at + n; at < end; at += 4 {
		y := loadFloats(weights, at).Mul(factor).Add(addend)
		place, upper := g.tableQuarter(y)
		place = g.tablePlace(y, place)
		code := lookUp8(&g.upperCodes[0], place).IfElse(upper, lookUp8(&g.lowerCodes[0], place))
		*(*uint32)(unsafe.Pointer(byteAt(codes, at))) = code.TruncToUint16().TruncToUint8().ReshapeToUint32s().GetElem(0)
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
