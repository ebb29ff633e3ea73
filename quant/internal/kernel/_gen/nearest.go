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
	gridPerSubnormal
	gridBias
	gridShift
	gridBounds            // of 24 numbers
	gridLevels = iota + 2 // of 16
	gridCodes  = iota + 3 // of 16
)

// nearest finds the levels nearest to numbers.
type nearest struct {
	isa
	kind string
	grid GPVirtual
	kept map[Mem]VecVirtual
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
func (n *nearest) table(m Mem) Op {
	if v, is := n.kept[m]; is {
		return v
	}
	return m
}

// bounds are those that levels have so many places further on.
func (n *nearest) bounds(further int) Mem { return n.at(gridBounds).Offset(4 * further) }

// keep loads before a loop what each turn needs, where there are registers enough.
func (n *nearest) keep() {
	if n.lanes == 8 {
		return
	}
	repeated, constants := []Mem{n.at(gridLow), n.at(gridHigh)}, []Mem{}
	switch n.kind {
	case "Table":
		for _, m := range []Mem{n.bounds(3), n.bounds(1), n.bounds(0), n.at(gridLevels)} {
			n.kept[m] = n.get(m)
		}
		repeated, constants = []Mem{n.at(gridEighth)}, []Mem{wholes[8], wholes[4], wholes[2], wholes[1]}
	case "Float":
		repeated, constants = append(repeated, n.at(gridSmallestNormal), n.at(gridMagic)), []Mem{infinity}
	}
	for _, m := range append(repeated, constants...) {
		n.kept[m] = broadcast(m, n.lanes)
	}
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

// placeOf16 is grid.index.
func (n *nearest) placeOf16(y VecVirtual) place {
	index := ZMM()
	beyond := n.compare(greaterQuiet, n.repeated(gridEighth), y)
	VMOVDQA32_Z(n.constant(wholes[8]), beyond, index)
	for _, step := range []int{4, 2, 1} {
		bound := ZMM()
		VPERMPS(n.table(n.bounds(step-1)), index, bound)
		VPADDD(n.constant(wholes[step]), index, n.compare(greaterQuiet, bound, y), index)
	}
	return place{index: index}
}

// permuted takes from a table of 16, or from both of its halves.
func (n *nearest) permuted(at place, whole, lower, upper int) VecVirtual {
	out := vector(n.lanes)
	if n.lanes == 16 {
		VPERMPS(n.table(n.at(whole)), at.index, out)
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
	magic := vector(n.lanes)
	n.and(n.constant(infinity), y, magic)
	VMAXPS(n.repeated(gridSmallestNormal), magic, magic)
	VMULPS(n.repeated(gridMagic), magic, magic)
	VADDPS(magic, y, y)
	VSUBPS(magic, y, y)
	return y
}

// floatCode is floatFormat.code.
func (n *nearest) floatCode(y VecVirtual) VecVirtual {
	shift, signShift := XMM(), XMM()
	VMOVUPS(n.at(gridShift), shift)
	VMOVUPS(n.at(gridShift).Offset(16), signShift)
	sign := vector(n.lanes)
	n.and(broadcast(signBit, n.lanes), y, sign)
	VPSRLD(signShift, sign, sign)
	rounded := n.rounded(y)
	n.and(broadcast(magnitude32, n.lanes), rounded, rounded)
	small := vector(n.lanes)
	VMULPS(n.repeated(gridPerSubnormal), rounded, small)
	VCVTPS2DQ(small, small)
	isSmall := n.compare(lessQuiet, n.repeated(gridSmallestNormal), rounded)
	VPSRLD(shift, rounded, rounded)
	VPSUBD(n.repeated(gridBias), rounded, rounded)
	n.choose(isSmall, small, rounded, rounded)
	n.or(sign, rounded, rounded)
	return rounded
}
