package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// transpose makes a tile of 16 groups.
func transpose(e element) {
	function("transpose"+e.name, "func(groups **byte, offset, n int, tile *float32)",
		"Weights of 16 groups, from a byte offset on, as n rows of a tile; n is a multiple of 8.")
	groups, tile := pointer("groups"), pointer("tile")
	for half := range 2 {
		at, to, left := GP64(), GP64(), GP64()
		MOVQ(argument("offset"), at)
		MOVQ(argument("n"), left)
		LEAQ(Mem{Base: tile, Disp: half * 32}, to)
		var from [8]GPVirtual
		for k := range from {
			from[k] = GP64()
			MOVQ(Mem{Base: groups, Disp: 8 * (8*half + k)}, from[k])
		}
		label := fmt.Sprintf("half%d", half)
		Label(label)
		var v [8]VecVirtual
		for k := range v {
			v[k] = e.load(Mem{Base: from[k], Index: at, Scale: 1}, 8)
		}
		for k, row := range transposed(v) {
			VMOVUPS(row, Mem{Base: to, Disp: k * laneBytes})
		}
		ADDQ(I32(int32(8*e.size)), at)
		ADDQ(I32(8*laneBytes), to)
		SUBQ(I32(8), left)
		JG(LabelRef(label))
	}
	VZEROUPPER()
	RET()
}

// transposed exchanges rows and columns: first of pairs, then of pairs of
// pairs, then of halves.
func transposed(v [8]VecVirtual) (out [8]VecVirtual) {
	both := func(low, high func(Op, Op, Op), a, b VecVirtual) (VecVirtual, VecVirtual) {
		l, h := YMM(), YMM()
		low(b, a, l)
		high(b, a, h)
		return l, h
	}
	for k := 0; k < 8; k += 2 {
		v[k], v[k+1] = both(func(b, a, l Op) { VUNPCKLPS(b, a, l) }, func(b, a, h Op) { VUNPCKHPS(b, a, h) }, v[k], v[k+1])
	}
	var w [8]VecVirtual
	for k := 0; k < 8; k += 4 {
		for j := range 2 {
			w[k+2*j], w[k+2*j+1] = both(func(b, a, l Op) { VUNPCKLPD(b, a, l) }, func(b, a, h Op) { VUNPCKHPD(b, a, h) }, v[k+j], v[k+2+j])
		}
	}
	for k := range 4 {
		out[k], out[k+4] = both(func(b, a, l Op) { VPERM2F128(U8(0x20), b, a, l) }, func(b, a, h Op) { VPERM2F128(U8(0x31), b, a, h) }, w[k], w[k+4])
	}
	return out
}
