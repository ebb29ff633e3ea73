package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// e4m3 is constants that round to numbers of E4M3.
type e4m3 struct {
	isa
	high, exponents, smallestNormal, magic VecVirtual
}

func (i isa) newE4M3() *e4m3 {
	return &e4m3{i, i.all(e4m3Largest), i.all(infinity), i.all(e4m3SmallestNormal), i.all(e4m3Magic)}
}

// round is floatFormat.roundPositive of what is not beyond it.
func (e *e4m3) round(v VecVirtual) {
	e.roundFloat(v, e.exponents, e.smallestNormal, e.magic)
}

// levelScales is plainOfLayer of the scalar kernel.
func levelScales(i isa) {
	function("levelScales", "func(lo, hi, normal, inverse, scale *float32, n int, high, layerScale float32) (plain bool)",
		"Gives n groups, rounded up to 8, scales that are E4M3 times the layer's. If not plain, one of them is special, and all are undefined.")
	lows, highs, normals, inverses, scales := pointer("lo"), pointer("hi"), pointer("normal"), pointer("inverse"), pointer("scale")
	high, layerScale, zero := i.all(argument("high")), i.all(argument("layerScale")), i.zeroed()
	e, d := i.newE4M3(), i.newDoubts()
	loopEights(func() {
		end, factor, found, rest := YMM(), YMM(), YMM(), YMM()
		VSUBPS(Mem{Base: lows}, zero, end)
		VMAXPS(Mem{Base: highs}, end, end)
		VDIVPS(high, end, factor)
		VMULPS(Mem{Base: inverses}, factor, factor)
		VDIVPS(layerScale, factor, factor)
		VCMPPS(U8(greaterQuiet), e.high, factor, found)
		d.add(found)
		e.round(factor)
		VMULPS(layerScale, factor, factor)
		VCMPPS(U8(equal), zero, factor, found)
		d.add(found)
		VMULPS(high, factor, rest)
		d.addNotFinite(rest)
		VMULPS(Mem{Base: normals}, factor, factor)
		VMOVUPS(factor, Mem{Base: scales})
	}, lows, highs, normals, inverses, scales)
	d.none()
}
