package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

const powerRefined = 3

// hqqSums are the sums of a tile: pull at sumRest, and restRest.
func hqqSums(i isa) {
	function("hqqSums"+i.name, "func(lanes, tile *float32, n int, maxCode float32)",
		"The sums of n rows of a tile, for half-quadratic quantization.")
	lanes := pointer("lanes")
	maxCode := vector(i.lanes)
	VBROADCASTSS(argument("maxCode"), maxCode)
	zero, ones, sign := zeroed(i.lanes), broadcast(one, i.lanes), broadcast(signBit, i.lanes)
	product := func(a, b VecVirtual) VecVirtual {
		p := vector(i.lanes)
		VMULPS(b, a, p)
		return p
	}
	for first := 0; first < 16; first += i.lanes {
		array := func(k int) Mem { return Mem{Base: lanes, Disp: k*searchBytes + 4*first} }
		tile, left := GP64(), GP64()
		MOVQ(argument("tile"), tile)
		MOVQ(argument("n"), left)
		pull, restRest := zeroed(i.lanes), zeroed(i.lanes)
		label := fmt.Sprintf("lane%d", first)
		Label(label)
		r, q := vector(i.lanes), vector(i.lanes)
		VMOVUPS(Mem{Base: tile, Disp: 4 * first}, r)
		VMULPS(array(currentInverse), r, r)
		VADDPS(array(currentZeroPoint), r, r)
		VMAXPS(zero, r, q)
		VMINPS(maxCode, q, q)
		i.round(q)
		VSUBPS(q, r, r)
		square := product(r, r)
		VADDPS(square, restRest, restRest)
		signs, x := vector(i.lanes), vector(i.lanes)
		i.and(sign, r, signs)
		i.xor(signs, r, x)
		y := vector(i.lanes)
		VCVTDQ2PS(x, y)
		VMULPS(broadcast(exponent, i.lanes), y, y)
		VADDPS(broadcast(powerFirst, i.lanes), y, y)
		VCVTPS2DQ(y, y)
		cube := product(x, x)
		VMULPS(x, cube, cube)
		for range powerRefined {
			y2 := product(y, y)
			change := product(y2, y2)
			VMULPS(change, change, change)
			VMULPS(y2, change, change)
			VMULPS(cube, change, change)
			VSUBPS(change, ones, change)
			VMULPS(change, y, change)
			VMULPS(broadcast(tenth, i.lanes), change, change)
			VADDPS(change, y, y)
		}
		VMULPS(array(thresholds), y, y)
		VSUBPS(y, x, x)
		VMAXPS(zero, x, x)
		i.or(signs, x, x)
		VSUBPS(x, r, r)
		VADDPS(r, pull, pull)
		ADDQ(I32(laneBytes), tile)
		DECQ(left)
		JNZ(LabelRef(label))
		VMOVUPS(pull, array(sumRest))
		VMOVUPS(restRest, array(sumRestRest))
	}
	VZEROUPPER()
	RET()
}
