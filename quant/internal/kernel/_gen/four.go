package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// four widens 4*lanes weights into four registers, and narrows the four
// registers of codes that come of them into one of bytes.
type four struct {
	element
	lanes int
	// kept masks the elements of bfloat16 that lie where float32 has its upper half.
	kept VecVirtual
	// limit is the largest code, in each byte.
	limit VecVirtual
	// mix takes even and odd elements of bfloat16 together.
	mix VecVirtual
	// order puts groups of 4 bytes right.
	order VecVirtual
}

func newFour(i isa, e element, maxCode VecVirtual) four {
	f := four{element: e, lanes: i.lanes, limit: vector(i.lanes), order: vector(i.lanes)}
	VPBROADCASTB(maxCode.AsX(), f.limit)
	VMOVUPS(orders[orderKey{i.lanes / 4, f.split()}], f.order)
	if f.split() {
		f.kept = broadcast(bfloatKept, i.lanes)
		f.mix = i.loadRepeated(mixed, 16)
	}
	return f
}

// split tells whether registers 0 and 2 have the elements 0, 2, 4 and so on, and
// registers 1 and 3 those between them: no shuffle is needed to widen them.
func (f four) split() bool { return f.name == "BFloat16" }

func (f four) load(address Mem) (v [4]VecVirtual) {
	for k := range v {
		at := address.Offset(k * f.lanes * f.size)
		if !f.split() {
			v[k] = f.element.load(at, f.lanes)
		} else if k%2 == 0 {
			even, odd := vector(f.lanes), vector(f.lanes)
			VMOVUPS(at, odd)
			VPSLLD(U8(16), odd, even)
			VANDPS(f.kept, odd, odd)
			v[k], v[k+1] = even, odd
		}
	}
	return v
}

// narrow clips integers to codes. Packing works within parts of 128 bits, of
// which each then has 4 bytes of each register.
func (f four) narrow(v [4]VecVirtual) VecVirtual {
	packBytes(v)
	VPMINUB(f.limit, v[0], v[0])
	if f.split() {
		VPSHUFB(f.mix, v[0], v[0])
	}
	VPERMD(v[0], f.order, v[0])
	return v[0]
}

// narrowed makes four registers of integers of 0 .. 255 one of bytes, given the order as of four.
func narrowed(v [4]VecVirtual, order VecVirtual) VecVirtual {
	packBytes(v)
	VPERMD(v[0], order, v[0])
	return v[0]
}

// packBytes narrows four registers of integers to bytes in the first one, within parts of 128 bits.
func packBytes(v [4]VecVirtual) {
	VPACKSSDW(v[1], v[0], v[0])
	VPACKSSDW(v[3], v[2], v[2])
	VPACKUSWB(v[2], v[0], v[0])
}
