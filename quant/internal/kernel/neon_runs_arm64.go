//go:build goexperiment.simd && go1.27

package kernel

import (
	"math"
	"simd/archsimd"
	"unsafe"
)

// rangesFloat32NEON finds the ends of each group. If a weight is not finite, neither is an end.
func rangesFloat32NEON(weights *byte, groups, groupSize int, lo, hi *float32, _ int) (nonFinite bool) {
	from := (*float32)(unsafe.Pointer(weights))
	at := 0
	for group := range groups {
		least := loadPair(from, at)
		most := least
		end := at + groupSize
		for at += 8; at < end; at += 8 {
			v := loadPair(from, at)
			least, most = least.min(v), most.max(v)
		}
		v, w := least.low.Min(least.high), most.low.Max(most.high)
		low := min(v.GetElem(0), v.GetElem(1), v.GetElem(2), v.GetElem(3))
		high := max(w.GetElem(0), w.GetElem(1), w.GetElem(2), w.GetElem(3))
		*floatAt(lo, group), *floatAt(hi, group) = low, high
		nonFinite = nonFinite || !isFinite(low) || !isFinite(high)
	}
	return nonFinite
}

// rangesShort is that for types of 16 bits, by their bits. A sign comes before the magnitude:
// the largest signed integer is the largest weight, unless all have a sign, and the largest
// unsigned one the smallest weight, unless none has; in these cases the least unsigned one is.
func rangesShort(weights *byte, groups, groupSize int, lo, hi *float32, t ElementType) (nonFinite bool) {
	exponents := uint16(infinityBits >> 16)
	if t == Float16 {
		exponents = 0x7c00
	}
	at := 0
	for group := range groups {
		unsigned := loadOctets(weights, at).ReshapeToUint16s()
		signed, least := unsigned.BitsToInt16(), unsigned
		end := at + 2*groupSize
		for at += 16; at < end; at += 16 {
			v := loadOctets(weights, at).ReshapeToUint16s()
			signed, unsigned, least = signed.Max(v.BitsToInt16()), unsigned.Max(v), least.Min(v)
		}
		// Signed integers are compared as unsigned ones after flipping their signs.
		const sign = 1 << 15
		low, other := largestShort(unsigned), ^largestShort(least.Not())
		high := largestShort(signed.ToBits().Xor(archsimd.BroadcastUint16x8(sign))) ^ sign
		if low < sign {
			low = other
		}
		if high >= sign {
			high = other
		}
		*floatAt(lo, group), *floatAt(hi, group) = widenShort(low, t), widenShort(high, t)
		nonFinite = nonFinite || low&exponents == exponents || high&exponents == exponents
	}
	return nonFinite
}

func largestShort(v shorts) uint16 {
	v = v.Max(v.HiToLo())
	return max(v.GetElem(0), v.GetElem(1), v.GetElem(2), v.GetElem(3))
}

// widenShort widens a finite weight.
func widenShort(bits uint16, t ElementType) float32 {
	if t == Float16 { // as loadElements
		return math.Float32frombits(uint32(int32(uint32(bits)<<16)>>3)&0x8fffe000) * 0x1p112
	}
	return math.Float32frombits(uint32(bits) << 16)
}

func rangesFloat16NEON(weights *byte, groups, groupSize int, lo, hi *float32, _ int) (nonFinite bool) {
	return rangesShort(weights, groups, groupSize, lo, hi, Float16)
}

func rangesBFloat16NEON(weights *byte, groups, groupSize int, lo, hi *float32, _ int) (nonFinite bool) {
	return rangesShort(weights, groups, groupSize, lo, hi, BFloat16)
}

// codeNEON gives the codes of each group, one byte each.
func codeNEON(weights *byte, groups, groupSize int, inverse, zeroPoint *float32, maxCode float32, codes *byte, t ElementType) {
	most, wide := both(fill(maxCode)), newWidening()
	at := 0
	for group := range groups {
		factor, offset := both(repeat(inverse, group)), both(repeat(zeroPoint, group))
		end := at + groupSize
		for ; at <= end-16; at += 16 {
			low := pairOf(loadElements(weights, at, t, wide)).mul(factor).add(offset).min(most).round().shorten()
			high := pairOf(loadElements(weights, at+8, t, wide)).mul(factor).add(offset).min(most).round().shorten()
			storeOctets(low.ReshapeToUint8s().ConcatEven(high.ReshapeToUint8s()), codes, at)
		}
		if at < end {
			storeLower(pairOf(loadElements(weights, at, t, wide)).mul(factor).add(offset).min(most).round().shorten().TruncToUint8(), codes, at)
			at = end
		}
	}
}

// codeOf is codeNEON of a type.
func codeOf(t ElementType) func(*byte, int, int, *float32, *float32, float32, *byte, int) {
	return func(weights *byte, groups, groupSize int, inverse, zeroPoint *float32, maxCode float32, codes *byte, _ int) {
		codeNEON(weights, groups, groupSize, inverse, zeroPoint, maxCode, codes, t)
	}
}

// decodeNEON gives float32 weights.
func decodeNEON(codes *byte, groups, groupSize int, scale, zeroPoint, weights *byte) {
	scales, zeroPoints, to := (*float32)(unsafe.Pointer(scale)), (*float32)(unsafe.Pointer(zeroPoint)), (*float32)(unsafe.Pointer(weights))
	at := 0
	for group := range groups {
		s, z := both(repeat(scales, group)), both(repeat(zeroPoints, group))
		for end := at + groupSize; at < end; at += 8 {
			widenOctets(loadLower(codes, at)).sub(z).mul(s).store(to, at)
		}
	}
}

// normalizeEndsNEON is normalizeEnds.
func normalizeEndsNEON(lo, hi, normal, inverse *float32, n int) {
	least, most := archsimd.BroadcastUint32x4(1), archsimd.BroadcastUint32x4(254)
	subnormal := archsimd.BroadcastUint32x4(1 << 22)
	for at := 0; at < n; at += 4 {
		low, high := loadFloats(lo, at), loadFloats(hi, at)
		exponent := floats{}.Sub(low).Max(high).Max(floats{}).ToBits().ShiftAllRight(23).Max(least)
		factor := most.Sub(exponent).ShiftAllLeft(23).Max(subnormal).BitsToFloat32()
		storeFloats(low.Mul(factor), lo, at)
		storeFloats(high.Mul(factor), hi, at)
		storeFloats(factor, normal, at)
		storeFloats(exponent.ShiftAllLeft(23).BitsToFloat32(), inverse, at)
	}
}

// decodeLevelsNEON is decodeNEON for codes that stand for 16 levels.
func decodeLevelsNEON(codes *byte, levels *float32, groups, groupSize int, scale, zeroPoint, weights *byte) {
	scales, zeroPoints, to := (*float32)(unsafe.Pointer(scale)), (*float32)(unsafe.Pointer(zeroPoint)), (*float32)(unsafe.Pointer(weights))
	l0, l1, l2, l3 := planesOf(levels)
	at := 0
	for group := range groups {
		s, z := both(repeat(scales, group)), both(repeat(zeroPoints, group))
		for end := at + groupSize; at < end; at += 8 {
			pairOf(lookUp(loadLower(codes, at), l0, l1, l2, l3)).sub(z).mul(s).store(to, at)
		}
	}
}

// decodeE4M3NEON is decodeNEON for codes that are numbers of E4M3: those of float32 once their
// exponents are more by as much as these have.
func decodeE4M3NEON(codes *byte, groups, groupSize int, scale, zeroPoint, weights *byte) {
	scales, zeroPoints, to := (*float32)(unsafe.Pointer(scale)), (*float32)(unsafe.Pointer(zeroPoint)), (*float32)(unsafe.Pointer(weights))
	magnitude, sign := archsimd.BroadcastUint16x8(0x7f), archsimd.BroadcastUint16x8(0x80)
	more, low, high := both(fill(0x1p120)), both(fill(-e4m3.largest)), both(fill(e4m3.largest))
	at := 0
	for group := range groups {
		s, z := both(repeat(scales, group)), both(repeat(zeroPoints, group))
		for end := at + groupSize; at < end; at += 8 {
			code := loadLower(codes, at).InterleaveLo(octets{}).ReshapeToUint16s()
			upper := code.And(magnitude).ShiftAllLeft(4).Or(code.And(sign).ShiftAllLeft(8))
			v := pairOf(shorts{}.InterleaveLo(upper).ReshapeToUint32s().BitsToFloat32(), shorts{}.InterleaveHi(upper).ReshapeToUint32s().BitsToFloat32())
			v.mul(more).max(low).min(high).sub(z).mul(s).store(to, at)
		}
	}
}

// normalizeNEON widens the weights of each group, and multiplies them.
func normalizeNEON(out *float32, weights *byte, groups, groupSize int, factors *float32, t ElementType) {
	wide := newWidening()
	at := 0
	for group := range groups {
		factor := both(repeat(factors, group))
		for end := at + groupSize; at < end; at += 8 {
			pairOf(loadElements(weights, at, t, wide)).mul(factor).store(out, at)
		}
	}
}

func normalizeOf(t ElementType) func(*float32, *byte, int, int, *float32) {
	return func(out *float32, weights *byte, groups, groupSize int, factors *float32) {
		normalizeNEON(out, weights, groups, groupSize, factors, t)
	}
}
