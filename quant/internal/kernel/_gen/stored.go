package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// stored are checks of what results have, of 8 groups at a time. Whatever is not surely right
// leaves a bit in a register.
func stored(i isa) {
	areE4M3(i)
	areFactors(i)
	areMinimums(i)
}

// doubts collects bits of what is not surely right.
type doubts struct {
	isa
	found VecVirtual
}

func (i isa) newDoubts() *doubts { return &doubts{i, i.zeroed()} }

// add keeps the bits of v.
func (d *doubts) add(v VecVirtual) { VORPS(v, d.found, d.found) }

// addSign keeps the sign of v.
func (d *doubts) addSign(v, sign VecVirtual) {
	signed := vector(d.lanes)
	VANDPS(v, sign, signed)
	d.add(signed)
}

// addDifference keeps where two numbers have not the same bits.
func (d *doubts) addDifference(a, b VecVirtual) {
	VXORPS(a, b, b)
	d.add(b)
}

// addNotFinite keeps where v is Inf or NaN.
func (d *doubts) addNotFinite(v VecVirtual) {
	rest := vector(d.lanes)
	VSUBPS(v, v, rest)
	d.add(rest)
}

// none ends the function, which gives whether there was no doubt.
func (d *doubts) none() {
	VPTEST(d.found, d.found)
	result := GP8()
	SETEQ(result)
	VZEROUPPER()
	Store(result, ReturnIndex(0))
	RET()
}

func areE4M3(i isa) {
	function("areE4M3", "func(scales *byte, n int, layerScale float32) bool",
		"Whether n scales, a multiple of 8, are surely those of nvfp4.")
	scales, left := pointer("scales"), pointer("n")
	layerScale, zero := i.all(argument("layerScale")), i.zeroed()
	e := i.newE4M3()
	d := i.newDoubts()
	Label("scales")
	factor, rounded := YMM(), YMM()
	VMOVUPS(Mem{Base: scales}, factor)
	VDIVPS(layerScale, factor, factor)
	VMINPS(e.high, factor, rounded)
	VMAXPS(zero, rounded, rounded)
	e.round(rounded)
	d.addDifference(factor, rounded)
	ADDQ(I32(32), scales)
	SUBQ(I32(8), left)
	JG(LabelRef("scales"))
	d.none()
}

// forSuperGroups emits a loop over the vectors of groups of each super-group, given what the
// super-group has.
func forSuperGroups(supers GPVirtual, begin func(super VecVirtual), each func(super VecVirtual)) {
	count, perSuper := pointer("superGroups"), pointer("perSuper")
	Label("supers")
	super, left := all(Mem{Base: supers}), GP64()
	begin(super)
	MOVQ(perSuper, left)
	Label("groups")
	each(super)
	SUBQ(I32(8), left)
	JG(LabelRef("groups"))
	ADDQ(I32(4), supers)
	DECQ(count)
	JNZ(LabelRef("supers"))
}

func areFactors(i isa) {
	function("areFactors", "func(scales, superScales *byte, superGroups, perSuper int, least, most float32) bool",
		"Whether the scales of all groups, a multiple of 8 for each super-scale, are surely its products with whole numbers within bounds.")
	scales := pointer("scales")
	least, most := i.all(argument("least")), i.all(argument("most"))
	d := i.newDoubts()
	forSuperGroups(pointer("superScales"), d.addNotFinite, func(super VecVirtual) {
		factor, rounded := YMM(), YMM()
		VMOVUPS(Mem{Base: scales}, factor)
		VDIVPS(super, factor, factor)
		VMINPS(most, factor, rounded)
		VMAXPS(least, rounded, rounded)
		i.round(rounded)
		d.addDifference(factor, rounded)
		ADDQ(I32(32), scales)
	})
	d.none()
}

func areMinimums(i isa) {
	function("areMinimums", "func(scales, zeroPoints, superMinimums *byte, superGroups, perSuper int, most float32) bool",
		"Whether the minimums of all groups, a multiple of 8 for each super-minimum, are surely its products with whole numbers, but for rounding.")
	scales, zeroPoints := pointer("scales"), pointer("zeroPoints")
	most, sign, rounding, zero := i.all(argument("most")), i.all(signBit), i.all(minimumRounding), i.zeroed()
	d := i.newDoubts()
	forSuperGroups(pointer("superMinimums"), d.addNotFinite, func(super VecVirtual) {
		factor, rounded, spare := YMM(), YMM(), YMM()
		VMOVUPS(Mem{Base: zeroPoints}, factor)
		VMULPS(Mem{Base: scales}, factor, factor)
		VDIVPS(super, factor, factor)
		d.addSign(factor, sign)
		VMINPS(most, factor, rounded)
		VMAXPS(zero, rounded, rounded)
		i.round(rounded)
		VSUBPS(rounded, factor, rounded)
		VANDNPS(rounded, sign, rounded)
		VPSUBD(rounded, rounding, spare)
		d.addSign(spare, sign)
		ADDQ(I32(32), scales)
		ADDQ(I32(32), zeroPoints)
	})
	d.none()
}
