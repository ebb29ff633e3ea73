package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// grids are the kinds of levels, in the order of gridKind.
var grids = []string{"Even", "Table", "Float"}

// Vectors of 8 within gridVectors, in its order.
const (
	gridLow = iota
	gridHigh
	gridEighth
	gridFourth
	gridTwelfth
	gridThirds
	gridOdds
	gridLowerLevels
	gridUpperLevels
	gridLowerCodes
	gridUpperCodes
	gridSmallestNormal
	gridMagic
	gridShift
	gridPerCell
	gridFirstCell
	gridCellBounds            // of 32 numbers
	gridCellLevels = iota + 3 // of 32
	gridLevels     = iota + 6 // of 16
	gridCodes      = iota + 7 // of 16
)

// nearest finds the levels nearest to numbers.
type nearest struct {
	isa
	kind string
	grid GPVirtual
	kept map[Mem]VecVirtual
	// Of codes of floating point: how far to shift, and the bit of the sign.
	shift, signShift, signCode VecVirtual
}

func newNearest(i isa, kind string, grid GPVirtual) *nearest {
	return &nearest{isa: i, kind: kind, grid: grid, kept: map[Mem]VecVirtual{}}
}

func (n *nearest) at(k int) Mem { return Mem{Base: n.grid, Disp: 32 * k} }

// repeated is a number in all lanes, as n.grid has it for 8.
func (n *nearest) repeated(k int) Op {
	switch v, is := n.kept[n.at(k)]; {
	case is:
		return v
	case n.lanes == 8:
		return n.at(k)
	default:
		return broadcast(n.at(k), n.lanes)
	}
}

// constant is a number in all lanes.
func (n *nearest) constant(c Mem) Op {
	if v, is := n.kept[c]; is {
		return v
	}
	return broadcast(c, n.lanes)
}

// table is 16 numbers.
func (n *nearest) table(k int) VecVirtual {
	if v, is := n.kept[n.at(k)]; is {
		return v
	}
	return n.get(n.at(k))
}

// keep loads before a loop what each turn needs, where there are registers enough.
func (n *nearest) keep() {
	if n.lanes == 8 {
		return
	}
	repeated := []Mem{n.at(gridLow), n.at(gridHigh)}
	switch n.kind {
	case "Table":
		repeated = append(repeated, n.at(gridPerCell), n.at(gridFirstCell))
		for _, m := range []Mem{n.at(gridCellBounds), n.at(gridCellBounds + 2), n.at(gridCellLevels), n.at(gridCellLevels + 2), n.at(gridLevels)} {
			n.kept[m] = n.get(m)
		}
	case "Float":
		repeated = append(repeated, n.at(gridSmallestNormal), n.at(gridMagic), infinity)
	}
	for _, m := range repeated {
		n.kept[m] = broadcast(m, n.lanes)
	}
}

// keepCodes also loads what codes need.
func (n *nearest) keepCodes() {
	n.keep()
	if n.kind != "Float" {
		return
	}
	n.shift, n.signShift, n.signCode = XMM(), XMM(), n.all(signBit)
	VMOVUPS(n.at(gridShift), n.shift)
	VMOVUPS(n.at(gridShift).Offset(16), n.signShift)
	VPSRLD(n.signShift, n.signCode, n.signCode)
}

// level puts the level nearest to y in its place.
func (n *nearest) level(y VecVirtual) VecVirtual {
	switch n.kind {
	case "Even":
		VMAXPS(n.repeated(gridLow), y, y)
		VMINPS(n.repeated(gridHigh), y, y)
		n.round(y)
		return y
	case "Table":
		return n.permuted(n.place(y), gridLevels, gridLowerLevels, gridUpperLevels)
	default:
		return n.rounded(y)
	}
}

// place is where in a table a level is.
type place struct {
	index VecVirtual // minus that within a half, for 8 lanes
	upper VecVirtual // whether in the upper half, for 8 lanes
}

// place finds the level nearest to y.
func (n *nearest) place(y VecVirtual) place {
	if n.lanes == 16 {
		return n.placeOf16(y)
	}
	upper, index := YMM(), YMM()
	bound, found := YMM(), YMM()
	VCMPPS(U8(greaterQuiet), n.at(gridEighth), y, upper)
	VMOVUPS(n.at(gridFourth), bound)
	VBLENDVPS(upper, n.at(gridTwelfth), bound, bound)
	VCMPPS(U8(greaterQuiet), bound, y, found)
	VPADDD(upper, upper, index)
	VPADDD(found, index, index)
	for _, bounds := range []int{gridThirds, gridOdds} {
		VPERMPS(n.at(bounds), index, bound)
		VCMPPS(U8(greaterQuiet), bound, y, found)
		VPADDD(index, index, index)
		VPADDD(found, index, index)
	}
	return place{index, upper}
}

// placeOf16 looks for the bound in the cell of y, of which there is one at most, and counts
// the sign of its distance. With masks it would wait for each of four comparisons.
func (n *nearest) placeOf16(y VecVirtual) place {
	VMAXPS(n.repeated(gridLow), y, y)
	VMINPS(n.repeated(gridHigh), y, y)
	cell, bound, index := ZMM(), ZMM(), ZMM()
	VMOVAPS(y, cell)
	VFMADD213PS(n.repeated(gridFirstCell), n.repeated(gridPerCell), cell)
	VCVTPS2DQ(cell, cell)
	VMOVAPS(cell, bound)
	VMOVAPS(cell, index)
	VPERMI2PS(n.table(gridCellBounds+2), n.table(gridCellBounds), bound)
	VPERMI2D(n.table(gridCellLevels+2), n.table(gridCellLevels), index)
	VSUBPS(y, bound, bound)
	VPSRLD(U8(31), bound, bound)
	VPADDD(bound, index, index)
	return place{index: index}
}

// permuted takes from a table of 16, or from both of its halves.
func (n *nearest) permuted(at place, whole, lower, upper int) VecVirtual {
	out := vector(n.lanes)
	if n.lanes == 16 {
		VPERMPS(n.table(whole), at.index, out)
		return out
	}
	high := YMM()
	VPERMPS(n.at(lower), at.index, out)
	VPERMPS(n.at(upper), at.index, high)
	VBLENDVPS(at.upper, high, out, out)
	return out
}

// rounded is floatFormat.round.
func (n *nearest) rounded(y VecVirtual) VecVirtual {
	VMAXPS(n.repeated(gridLow), y, y)
	VMINPS(n.repeated(gridHigh), y, y)
	n.roundFloat(y, n.constant(infinity), n.repeated(gridSmallestNormal), n.repeated(gridMagic))
	return y
}

// roundFloat rounds to numbers of a floatFormat, beyond which v is not.
func (i isa) roundFloat(v VecVirtual, exponents, smallestNormal, toMagic Op) {
	magic := vector(i.lanes)
	i.and(exponents, v, magic)
	VMAXPS(smallestNormal, magic, magic)
	VMULPS(toMagic, magic, magic)
	VADDPS(magic, v, v)
	VSUBPS(magic, v, v)
}

// code gives the code of the level nearest to y, which it changes.
func (n *nearest) code(y VecVirtual) VecVirtual {
	switch n.kind {
	case "Even":
		n.level(y)
		VSUBPS(n.repeated(gridLow), y, y)
		VCVTPS2DQ(y, y)
		return y
	case "Table":
		return n.permuted(n.place(y), gridCodes, gridLowerCodes, gridUpperCodes)
	default:
		return n.floatCode(y)
	}
}

// floatCode is floatFormat.code. Once magic is added, the last bits of a magnitude count the steps
// of its power of two, to which those of lesser powers come.
func (n *nearest) floatCode(y VecVirtual) VecVirtual {
	addSign := n.magnitude(y)
	power, magic := vector(n.lanes), vector(n.lanes)
	n.and(n.constant(infinity), y, power)
	VMAXPS(n.repeated(gridSmallestNormal), power, power)
	VMULPS(n.repeated(gridMagic), power, magic)
	VADDPS(magic, y, y)
	VPSUBD(magic, y, y)
	VPSUBD(n.repeated(gridSmallestNormal), power, power)
	VPSRLD(n.shift, power, power)
	VPADDD(power, y, y)
	addSign(y)
	return y
}

// magnitude makes y its magnitude, of the largest level at most, and gives what adds the bit of its
// sign to a code.
func (n *nearest) magnitude(y VecVirtual) (addSign func(code VecVirtual)) {
	if n.lanes == 16 {
		negative := K()
		VPMOVD2M(y, negative)
		VRANGEPS(U8(leastMagnitude), n.repeated(gridHigh), y, y)
		return func(code VecVirtual) { VPORD(n.signCode, code, negative, code) }
	}
	sign := YMM()
	VPSRLD(n.signShift, y, sign)
	VANDPS(n.signCode, sign, sign)
	VANDPS(n.constant(magnitude32), y, y)
	VMINPS(n.repeated(gridHigh), y, y)
	return func(code VecVirtual) { VPOR(sign, code, code) }
}
