package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// In the functions of this file every lane has a group, or a part of a unit, and there are 8 at a
// time: what is between the loops over weights.

// forEights emits a loop over n numbers, rounded up to 8, of each of some arrays, and ends.
func forEights(each func(), arrays ...GPVirtual) {
	loopEights(each, arrays...)
	VZEROUPPER()
	RET()
}

// loopEights emits the loop alone.
func loopEights(each func(), arrays ...GPVirtual) {
	left := pointer("n")
	Label("next")
	each()
	for _, p := range arrays {
		ADDQ(I32(32), p)
	}
	SUBQ(I32(8), left)
	JG(LabelRef("next"))
}

// minimumScales is plainMinimums.
func minimumScales(i isa) {
	function("minimumScales", "func(lo, hi, scales, minimums *float32, n int, high float32)",
		"Scales and minimums of n groups, rounded up to 8, over their range, which minimums extend to 0.")
	lows, highs, scales, minimums := pointer("lo"), pointer("hi"), pointer("scales"), pointer("minimums")
	steps, sign, zero := i.all(argument("high")), i.all(signBit), i.zeroed()
	forEights(func() {
		lo, hi, differ := YMM(), i.get(Mem{Base: highs}), YMM()
		VMINPS(Mem{Base: lows}, zero, lo)
		VCMPPS(U8(notEqual), hi, lo, differ)
		VANDPS(differ, hi, hi)
		VSUBPS(lo, hi, hi)
		VDIVPS(steps, hi, hi)
		VXORPS(sign, lo, lo)
		VMOVUPS(hi, Mem{Base: scales})
		VMOVUPS(lo, Mem{Base: minimums})
	}, lows, highs, scales, minimums)
}

// factorScales is plainFactors.
func factorScales(i isa) {
	function("factorScales", "func(lo, hi, scales *float32, n int, low float32)",
		"Scales of n groups, rounded up to 8, with which their ends of largest magnitude get the lowest level.")
	lows, highs, scales := pointer("lo"), pointer("hi"), pointer("scales")
	lowest, sign := i.all(argument("low")), i.all(signBit)
	forEights(func() {
		end, larger := i.get(Mem{Base: lows}), YMM()
		VXORPS(sign, end, larger)
		hi := i.get(Mem{Base: highs})
		VPCMPGTD(larger, hi, larger)
		VBLENDVPS(larger, hi, end, end)
		VDIVPS(lowest, end, end)
		VMOVUPS(end, Mem{Base: scales})
	}, lows, highs, scales)
}

// multiples is takeMultiples.
func multiples(i isa) {
	function("multiples", "func(values *float32, n int, unit, least, most float32)",
		"Replaces n values, rounded up to 8, by the nearest multiples of a unit, which is not 0.")
	values := pointer("values")
	unit, least, most, zero := i.all(argument("unit")), i.all(argument("least")), i.all(argument("most")), i.zeroed()
	forEights(func() {
		v := i.get(Mem{Base: values})
		VDIVPS(unit, v, v)
		VMAXPS(least, v, v)
		VMINPS(most, v, v)
		i.round(v)
		VADDPS(zero, v, v) // never -0
		VMULPS(unit, v, v)
		VMOVUPS(v, Mem{Base: values})
	}, values)
}

// largestNumber is largest.
func largestNumber(i isa) {
	function("largestNumber", "func(numbers *float32, n int) (found float32)", "The number of largest magnitude, the first one of several, of 8 or 16.")
	numbers, last := pointer("numbers"), pointer("n")
	magnitudes, most := []VecVirtual{YMM(), YMM()}, YMM()
	sizes := i.all(magnitude32)
	VANDPS(Mem{Base: numbers}, sizes, magnitudes[0])
	VANDPS(Mem{Base: numbers, Index: last, Scale: 4, Disp: -32}, sizes, magnitudes[1])
	VMAXPS(magnitudes[0], magnitudes[1], most)
	acrossLanes(VMAXPS, most)
	place, upper := GP32(), GP32()
	VMOVMSKPS(i.compare(equal, most, magnitudes[0]), place)
	VMOVMSKPS(i.compare(equal, most, magnitudes[1]), upper)
	SHLL(U8(8), upper)
	ORL(upper, place)
	BSFL(place, place)
	found, zero := XMM(), zeroed(8)
	VMOVSS(Mem{Base: numbers, Index: place.As64(), Scale: 4}, found)
	VADDSS(zero.AsX(), found, found) // never -0
	VZEROUPPER()
	Store(found, Return("found"))
	RET()
}

// unitParts is roundUnits.
func unitParts(i isa) {
	function("unitParts", "func(stored, tried, parts *float32, needed, inverse, normal float32)",
		"16 parts of a unit that is needed, as float16 has them, subnormal ones rounded up, and normalized.")
	stored, tried, parts := pointer("stored"), pointer("tried"), pointer("parts")
	needed, inverse, normal := i.all(argument("needed")), i.all(argument("inverse")), i.all(argument("normal"))
	for k := range i.parts() {
		v, rounded := i.get(i.lane(parts, 0, k)), YMM()
		VMULPS(needed, v, v)
		VMULPS(inverse, v, v)
		VMULPS(i.all(perSubnormal16), v, rounded)
		VROUNDPS(U8(2), rounded, rounded) // up
		VMULPS(i.all(minFloat16), rounded, rounded)
		subnormal := i.compare(lessQuiet, i.all(normalFloat16), v)
		i.roundScale("Float16", v)
		i.choose(subnormal, rounded, v, rounded)
		VMOVUPS(rounded, i.lane(stored, 0, k))
		VMULPS(normal, rounded, rounded)
		VMOVUPS(rounded, i.lane(tried, 0, k))
	}
	VZEROUPPER()
	RET()
}

// powerScales is plainPowers. Exponents are those of float32, with their bias.
func powerScales(i isa) {
	function("powerScales", "func(lo, hi, inverse, scale *float32, n int, high int32) (plain bool)",
		"Gives n groups, rounded up to 8, the powers of two with which their largest magnitudes have the exponent high. If not plain, one of them is special, and all are undefined.")
	lows, highs, inverses, scales := pointer("lo"), pointer("hi"), pointer("inverse"), pointer("scale")
	sign, zero, lowest, high, bias := i.all(signBit), i.zeroed(), i.all(lowestBit), i.all(argument("high")), i.all(exponentBias)
	least, most := YMM(), YMM()
	VPSUBD(bias, zero, least)
	VPSUBD(high, bias, most)
	VPADDD(bias, bias, bias)
	d := i.newDoubts()
	loopEights(func() {
		end, shift, exponent, special := i.get(Mem{Base: lows}), i.get(Mem{Base: inverses}), YMM(), YMM()
		VPXOR(sign, end, end)
		VPMAXSD(Mem{Base: highs}, end, end)
		VPCMPEQD(zero, end, special)
		d.add(special)
		VPSRLD(U8(23), end, exponent)
		VPSRLD(U8(23), shift, shift)
		VPADDD(shift, exponent, exponent)
		VPSUBD(bias, exponent, exponent)
		VPSUBD(high, exponent, exponent)
		VPMAXSD(least, exponent, exponent)
		VPMINSD(most, exponent, exponent)
		VPSUBD(shift, exponent, exponent)
		VPADDD(bias, exponent, exponent)
		VPCMPGTD(exponent, lowest, special)
		d.add(special)
		VPSLLD(U8(23), exponent, exponent)
		VMOVUPS(exponent, Mem{Base: scales})
	}, lows, highs, inverses, scales)
	d.none()
}

// groupCoders is makeCoders.
func groupCoders(i isa) {
	function("groupCoders", "func(scale, minimum, inverse, offset *float32, n int)", "What finds the codes of n groups, rounded up to 8.")
	scales, minimums, inverses, offsets := pointer("scale"), pointer("minimum"), pointer("inverse"), pointer("offset")
	forEights(func() {
		inverse, offset := i.coder(i.get(Mem{Base: scales}), i.get(Mem{Base: minimums}))
		VMOVUPS(inverse, Mem{Base: inverses})
		VMOVUPS(offset, Mem{Base: offsets})
	}, scales, minimums, inverses, offsets)
}
