package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// fit chooses the parameters of 8 groups at a time, as the function of that
// name does in rtn.go, for groups to which the plain formulas apply.
func fit(zero, scale string) {
	function("fit"+zero+scale, "func(lo, hi *float32, n int, maxCode, half float32, scale, inverse, zeroPoint *float32) (plain bool)",
		"Round-to-nearest parameters of n groups. Slices are rounded up to 8 groups. If not plain, they are undefined.")
	lows, highs, left := pointer("lo"), pointer("hi"), pointer("n")
	scales, inverses, zeroPoints := pointer("scale"), pointer("inverse"), pointer("zeroPoint")
	maxCode, half := all(argument("maxCode")), all(argument("half"))
	nothing, magnitude, sign := zeroed(8), all(magnitude32), all(signBit)
	Label("next")
	lo, hi, s, t := YMM(), YMM(), YMM(), YMM()
	VMOVUPS(Mem{Base: lows}, lo)
	VMOVUPS(Mem{Base: highs}, hi)
	outside := zeroed(8) // lanes to which the formulas do not apply
	require := func(v VecVirtual, lowest, highest Mem) {
		VANDPS(magnitude, v, t)
		if lowest.Symbol.Name != "" {
			fails := all(lowest)
			VCMPPS(U8(9), fails, t, fails) // not t >= lowest, and so for NaN
			VORPS(fails, outside, outside)
		}
		fails := all(highest)
		VCMPPS(U8(6), fails, t, fails) // not t <= highest, likewise
		VORPS(fails, outside, outside)
	}
	switch zero {
	case "Symmetric":
		VXORPS(sign, lo, t)
		VCMPPS(U8(13), t, hi, t) // hi >= -lo
		VBLENDVPS(t, hi, lo, s)
		VXORPS(sign, s, s)
		VDIVPS(half, s, s)
	case "Integer":
		VMINPS(nothing, lo, lo)
		VMAXPS(nothing, hi, hi)
		VSUBPS(lo, hi, s)
		VDIVPS(maxCode, s, s)
	case "Float":
		require(lo, Mem{}, maxOffset)
		require(hi, Mem{}, maxOffset)
		VSUBPS(lo, hi, s)
		VDIVPS(maxCode, s, s)
	}
	require(s, minPlain, maxPlain)
	isas[0].roundScale(scale, s)
	if scale == "Float16" {
		require(s, minFloat16, maxFloat16)
	}
	inverse := all(one)
	VDIVPS(s, inverse, inverse)
	z := YMM()
	switch zero {
	case "Symmetric":
		VMOVAPS(half, z)
	case "Integer":
		VXORPS(sign, lo, z)
		VMULPS(inverse, z, z)
		VMINPS(maxCode, z, z)
		VMAXPS(nothing, z, z)
		VROUNDPS(U8(0), z, z)
	case "Float":
		VXORPS(sign, lo, z)
		VMULPS(inverse, z, z)
		VADDPS(nothing, z, z) // never -0.0
	}
	VMOVUPS(s, Mem{Base: scales})
	VMOVUPS(inverse, Mem{Base: inverses})
	VMOVUPS(z, Mem{Base: zeroPoints})
	for _, p := range []GPVirtual{lows, highs, scales, inverses, zeroPoints} {
		ADDQ(I32(32), p)
	}
	// Lanes past the last group do not count.
	failed, lanes := GP32(), GP32()
	VMOVMSKPS(outside, failed)
	MOVL(U32(0xff), lanes)
	CMPQ(left, Imm(8))
	JGE(LabelRef("all_lanes"))
	MOVL(U32(1), lanes)
	shifted := GP64()
	MOVQ(left, shifted)
	SHLXQ(shifted, lanes.As64(), lanes.As64())
	DECL(lanes)
	Label("all_lanes")
	TESTL(lanes, failed)
	JNE(LabelRef("not_plain"))
	SUBQ(I32(8), left)
	JG(LabelRef("next"))
	VZEROUPPER()
	yes := GP8()
	MOVB(U8(1), yes)
	Store(yes, Return("plain"))
	RET()
	Label("not_plain")
	VZEROUPPER()
	no := GP8()
	XORB(no, no)
	Store(no, Return("plain"))
	RET()
}

// roundScale rounds scales to a type, to nearest, ties to even.
func (i isa) roundScale(dtype string, s VecVirtual) {
	t := vector(i.lanes)
	switch dtype {
	case "Float16":
		var half Op = t.AsX()
		if i.lanes == 16 {
			half = t.AsY()
		}
		VCVTPS2PH(U8(0), s, half)
		VCVTPH2PS(half, s)
	case "BFloat16":
		VPSRLD(U8(16), s, t)
		i.and(i.all(lowestBit), t, t)
		VPADDD(i.all(bfloatBelow), t, t)
		VPADDD(s, t, s)
		i.and(i.all(bfloatKept), s, s)
	}
}
