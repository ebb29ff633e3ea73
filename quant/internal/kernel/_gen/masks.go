package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// Predicates of comparisons.
const (
	equal        = 0
	less         = 1
	atMost       = 2
	notEqual     = 4
	atLeast      = 13
	greater      = 14
	lessQuiet    = 17 // no exception for NaN
	greaterQuiet = 30
)

// leastMagnitude is the smaller of two magnitudes, of VRANGEPS.
const leastMagnitude = 0b1010

// compare tells where a predicate holds of a and b: a register of masks for 16 lanes, a
// vector for 8.
func (i isa) compare(predicate uint8, b Op, a VecVirtual) Register {
	var holds Register = YMM()
	if i.lanes == 16 {
		holds = K()
	}
	VCMPPS(U8(predicate), b, a, holds)
	return holds
}

// both keeps in b where a holds, too.
func (i isa) both(a, b Register) {
	if i.lanes == 16 {
		KANDW(a, b, b)
	} else {
		VANDPS(a, b, b)
	}
}

// choose is yes where a mask holds, else no.
func (i isa) choose(mask Register, yes Op, no, out VecVirtual) {
	if i.lanes == 16 {
		VBLENDMPS(yes, no, mask, out)
	} else {
		VBLENDVPS(mask, yes, no, out)
	}
}

// where is v where a mask holds, else 0.
func (i isa) where(mask Register, v VecVirtual) VecVirtual {
	out := vector(i.lanes)
	if i.lanes == 16 {
		VMOVAPS_Z(v, mask, out)
	} else {
		VANDPS(mask, v, out)
	}
	return out
}

// replaceFirst puts another number into the first lane.
func (i isa) replaceFirst(number, v VecVirtual) {
	if i.lanes == 16 {
		first, bits := K(), GP32()
		MOVL(U32(1), bits)
		KMOVW(bits, first)
		VMOVAPS(number, first, v)
	} else {
		VBLENDPS(U8(1), number, v, v)
	}
}

// acrossLanes gives each of 8 lanes what an operation makes of all.
func acrossLanes(join func(ops ...Op), v VecVirtual) {
	other := YMM()
	VPERM2F128(U8(1), v, v, other)
	join(other, v, v)
	VPERMILPS(U8(0x4e), v, other)
	join(other, v, v)
	VPERMILPS(U8(0xb1), v, other)
	join(other, v, v)
}

// least gives the least of 16 numbers, in all lanes, and the first place where it is.
func (i isa) least(v []VecVirtual) (least VecVirtual, place GPVirtual) {
	least = YMM()
	if i.lanes == 16 {
		upper := YMM()
		VEXTRACTF64X4(U8(1), v[0], upper)
		VMINPS(upper, v[0].AsY(), least)
	} else {
		VMINPS(v[1], v[0], least)
	}
	acrossLanes(VMINPS, least)
	found := GP32()
	if i.lanes == 16 {
		whole := ZMM()
		VBROADCASTSS(least.AsX(), whole)
		KMOVW(i.compare(equal, whole, v[0]), found)
	} else {
		upper := GP32()
		VMOVMSKPS(i.compare(equal, least, v[0]), found)
		VMOVMSKPS(i.compare(equal, least, v[1]), upper)
		SHLL(U8(8), upper)
		ORL(upper, found)
	}
	ORL(U32(1<<15), found) // whatever NaN compares to
	place = GP64()
	BSFL(found, place.As32())
	return least, place
}
