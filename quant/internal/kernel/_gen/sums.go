package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// sums adds the errors of each group to laneSums.
func sums(i isa, e element) {
	function("sums"+e.name+i.name, "func(weights *byte, groups, groupSize int, scale, zeroPoint *float32, codes *byte, sums *float64)",
		"Adds the errors of each group to the lanes of laneSums.")
	weights, scales, zeroPoints, codes, to := pointer("weights"), pointer("scale"), pointer("zeroPoint"), pointer("codes"), pointer("sums")
	// AVX-512 holds 8 float64 in a register and all sums in registers; AVX2
	// holds 4, and adds to memory.
	var totals [5]VecVirtual
	if i.lanes == 16 {
		for k := range totals {
			totals[k] = ZMM()
			VMOVUPD(Mem{Base: to, Disp: 64 * k}, totals[k])
		}
	}
	magnitude := vector(i.lanes)
	VBROADCASTSD(magnitudeMask, magnitude)
	forGroups("sums", func(groupSize GPVirtual) {
		scale, zeroPoint := broadcast(Mem{Base: scales}, i.lanes), broadcast(Mem{Base: zeroPoints}, i.lanes)
		i.forSteps(groupSize, steps{body: func(lanes, at int) {
			w := e.load(Mem{Base: weights, Disp: at * e.size}, lanes)
			d := loadCodes(Mem{Base: codes, Disp: at}, lanes)
			VSUBPS(lower(zeroPoint, lanes), d, d)
			VMULPS(lower(scale, lanes), d, d)
			// The upper half has the same lanes as the lower one, later.
			for part := 0; part < lanes*8; part += i.lanes * 4 {
				i.addSums(i.toFloat64(w, lanes, part), i.toFloat64(d, lanes, part), magnitude, totals, to, part%64)
			}
		}, advance: func(elements int) {
			ADDQ(I32(int32(elements*e.size)), weights)
			ADDQ(I32(int32(elements)), codes)
		}})
		ADDQ(I32(4), scales)
		ADDQ(I32(4), zeroPoints)
	})
	if i.lanes == 16 {
		for k, total := range totals {
			VMOVUPD(total, Mem{Base: to, Disp: 64 * k})
		}
	}
	VZEROUPPER()
	RET()
}

// toFloat64 widens the lower or the upper half of a register. part is the
// byte position of the result among the register's lanes as float64.
func (i isa) toFloat64(v VecVirtual, lanes, part int) VecVirtual {
	out := vector(i.lanes)
	switch {
	case i.lanes == 16 && lanes == 8:
		VCVTPS2PD(v, out)
	case i.lanes == 16 && part == 0:
		VCVTPS2PD(v.AsY(), out)
	case i.lanes == 16:
		upper := YMM()
		VEXTRACTF64X4(U8(1), v, upper)
		VCVTPS2PD(upper, out)
	case part == 0:
		VCVTPS2PD(v.AsX(), out)
	default:
		upper := XMM()
		VEXTRACTF128(U8(1), v, upper)
		VCVTPS2PD(upper, out)
	}
	return out
}

// addSums adds the terms of some weights w and decoded weights d. The products
// of two float32 are exact in float64, but the square of the error is not.
func (i isa) addSums(w, d, magnitude VecVirtual, totals [5]VecVirtual, to GPVirtual, lane int) {
	total := func(k int, update func(total VecVirtual)) {
		if i.lanes == 16 {
			update(totals[k])
			return
		}
		address := Mem{Base: to, Disp: 64*k + lane}
		v := YMM()
		VMOVUPD(address, v)
		update(v)
		VMOVUPD(v, address)
	}
	e, square := vector(i.lanes), vector(i.lanes)
	VSUBPD(d, w, e)
	VMULPD(e, e, square)
	total(0, func(t VecVirtual) { VADDPD(square, t, t) })
	total(1, func(t VecVirtual) { VFMADD231PD(w, w, t) })
	total(2, func(t VecVirtual) { VFMADD231PD(d, d, t) })
	total(3, func(t VecVirtual) { VFMADD231PD(w, d, t) })
	VANDPD(magnitude, e, e)
	total(4, func(t VecVirtual) { VMAXPD(e, t, t) })
}
