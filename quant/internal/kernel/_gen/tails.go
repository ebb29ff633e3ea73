package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// tails adds the sums of four rows, which are of float32, to float64.
func tails(e element) {
	function("addTails"+e.name, "func(magnitudes, squares *float64, rows **byte, columns int)",
		"Adds four rows to the sums of so many columns, a multiple of 8.")
	magnitudes, squares, rows, left := pointer("magnitudes"), pointer("squares"), pointer("rows"), pointer("columns")
	var from [4]GPVirtual
	for k := range from {
		from[k] = GP64()
		MOVQ(Mem{Base: rows, Disp: 8 * k}, from[k])
	}
	sign := broadcast(signBit, 8)
	Label("eight")
	var magnitude, square VecVirtual
	for k, row := range from {
		w, product := e.load(Mem{Base: row}, 8), YMM()
		VANDNPS(w, sign, w)
		VMULPS(w, w, product)
		if k == 0 {
			magnitude, square = w, product
		} else {
			VADDPS(w, magnitude, magnitude)
			VADDPS(product, square, square)
		}
	}
	avx2 := isas[0]
	for part := 0; part < 64; part += 32 {
		add := func(sum VecVirtual, to GPVirtual) {
			v := avx2.toFloat64(sum, 8, part)
			VADDPD(Mem{Base: to, Disp: part}, v, v)
			VMOVUPD(v, Mem{Base: to, Disp: part})
		}
		add(magnitude, magnitudes)
		add(square, squares)
	}
	for _, row := range from {
		ADDQ(I32(int32(8*e.size)), row)
	}
	ADDQ(I32(64), magnitudes)
	ADDQ(I32(64), squares)
	SUBQ(I32(8), left)
	JG(LabelRef("eight"))
	VZEROUPPER()
	RET()
}
