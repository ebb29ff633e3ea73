package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// sums adds the errors of each group to laneSums.
func sums(i isa, e element) {
	function("sums"+e.name+i.name, "func(weights *byte, groups, groupSize int, scale, zeroPoint *float32, codes *byte, sums *float64, ahead int)",
		"Adds the errors of each group to the lanes of laneSums. Weights this many bytes ahead are prefetched.")
	weights, scales, zeroPoints, codes, to, ahead := pointer("weights"), pointer("scale"), pointer("zeroPoint"), pointer("codes"), pointer("sums"), pointer("ahead")
	totals := i.loadTotals(to)
	magnitude := vector(i.lanes)
	VBROADCASTSD(magnitudeMask, magnitude)
	forGroups("sums", func(groupSize GPVirtual) {
		i.forSteps(groupSize, steps{body: func(lanes, at int) {
			prefetchAhead(weights, ahead, lines(at*e.size), lines((at+lanes)*e.size))
			var w Op = Mem{Base: weights, Disp: at * e.size}
			if e.name != "Float32" {
				w = e.load(w.(Mem), lanes)
			}
			d := loadCodes(Mem{Base: codes, Disp: at}, lanes)
			// The sums take the registers that scale and zero-point would stay in.
			VSUBPS(broadcast(Mem{Base: zeroPoints}, lanes), d, d)
			VMULPS(broadcast(Mem{Base: scales}, lanes), d, d)
			i.addSums(w, d, lanes, magnitude, totals)
		}, advance: func(elements int) {
			ADDQ(I32(int32(elements*e.size)), weights)
			ADDQ(I32(int32(elements)), codes)
		}})
		ADDQ(I32(4), scales)
		ADDQ(I32(4), zeroPoints)
	})
	i.storeTotals(totals, to)
	VZEROUPPER()
	RET()
}

// toFloat64 widens the lower or the upper half of what is in a register or, as float32, in memory.
// part is the byte position of the result among the lanes as float64.
func (i isa) toFloat64(from Op, lanes, part int) VecVirtual {
	out := vector(i.lanes)
	if memory, ok := from.(Mem); ok {
		VCVTPS2PD(memory.Offset(part/2), out)
		return out
	}
	v := from.(VecVirtual)
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

// sumTotals are the arrays of laneSums, each in one register or two.
type sumTotals [5][]VecVirtual

func (i isa) eachTotal(t sumTotals, to GPVirtual, do func(total VecVirtual, at Mem)) {
	for k, parts := range t {
		for part, total := range parts {
			do(total, Mem{Base: to, Disp: 64*k + 4*i.lanes*part})
		}
	}
}

func (i isa) loadTotals(from GPVirtual) (t sumTotals) {
	for k := range t {
		for range 16 / i.lanes {
			t[k] = append(t[k], vector(i.lanes))
		}
	}
	i.eachTotal(t, from, func(total VecVirtual, at Mem) { VMOVUPD(at, total) })
	return t
}

func (i isa) storeTotals(t sumTotals, to GPVirtual) {
	i.eachTotal(t, to, func(total VecVirtual, at Mem) { VMOVUPD(total, at) })
}

// addSums adds the terms of so many weights and decoded weights. The products of
// two float32 are exact in float64, but the square of the error is not.
func (i isa) addSums(weights, decoded Op, lanes int, magnitude VecVirtual, totals sumTotals) {
	for part := 0; part < lanes*8; part += i.lanes * 4 {
		// With 16 lanes, the upper half has the same lanes as the lower one, later.
		total := func(k int) VecVirtual { return totals[k][part%64/(i.lanes*4)] }
		w, d := i.toFloat64(weights, lanes, part), i.toFloat64(decoded, lanes, part)
		VFMADD231PD(w, w, total(1))
		VFMADD231PD(d, d, total(2))
		VFMADD231PD(w, d, total(3))
		e := w
		VSUBPD(d, w, e)
		i.largerMagnitude(e, total(4), magnitude)
		VMULPD(e, e, e)
		VADDPD(e, total(0), total(0))
	}
}

// largerMagnitude makes largest, of no sign, the magnitude of v where that is larger.
func (i isa) largerMagnitude(v, largest, magnitude VecVirtual) {
	if i.lanes == 16 {
		const maximum, magnitudes, noSign = 1, 2, 8
		VRANGEPD(U8(maximum|magnitudes|noSign), v, largest, largest)
		return
	}
	m := vector(i.lanes)
	VANDPD(magnitude, v, m)
	VMAXPD(m, largest, largest)
}
