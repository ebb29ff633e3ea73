package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// vector is a new register of 8 or 16 float32.
func vector(lanes int) VecVirtual {
	if lanes == 16 {
		return ZMM()
	}
	return YMM()
}

// load widens lanes elements at address to float32.
func (e element) load(address Mem, lanes int) VecVirtual {
	v := vector(lanes)
	e.loadInto(v, address)
	return v
}

// loadInto loads as many weights as v has lanes.
func (e element) loadInto(v Op, address Mem) {
	switch e.name {
	case "Float32":
		VMOVUPS(address, v)
	case "Float16":
		VCVTPH2PS(address, v)
	case "BFloat16":
		VPMOVZXWD(address, v)
		VPSLLD(U8(16), v, v)
	}
}

// loadCodes widens lanes codes at address to float32.
func loadCodes(address Mem, lanes int) VecVirtual {
	v := vector(lanes)
	VPMOVZXBD(address, v)
	VCVTDQ2PS(v, v)
	return v
}

func broadcast(address Mem, lanes int) VecVirtual {
	v := vector(lanes)
	VBROADCASTSS(address, v)
	return v
}

func zeroed(lanes int) VecVirtual {
	v := vector(lanes)
	if lanes == 16 {
		VPXORD(v, v, v)
	} else {
		VXORPS(v, v, v)
	}
	return v
}

// lower is a register, or the part of it that has only so many lanes.
func lower(v VecVirtual, lanes int) Op {
	if lanes == 8 && v.Size() == 64 {
		return v.AsY()
	}
	return v
}

// pointer loads a pointer argument.
func pointer(name string) GPVirtual { return Load(Param(name), GP64()).(GPVirtual) }

// argument is where an argument lies on the stack.
func argument(name string) Mem {
	basic, err := Param(name).Resolve()
	if err != nil {
		panic(err)
	}
	return basic.Addr
}

// function begins a function.
func function(name, signature, doc string) {
	TEXT(name, NOSPLIT, signature)
	Pragma("noescape")
	Doc(doc)
}

// round rounds to whole numbers, ties to even.
func (i isa) round(v VecVirtual) {
	if i.lanes == 16 {
		VRNDSCALEPS(U8(0), v, v)
	} else {
		VROUNDPS(U8(0), v, v)
	}
}

// Bitwise operations, which are not the same instructions for both.
func (i isa) and(a Op, b, out VecVirtual) { i.bitwise(VANDPS, VPANDD, a, b, out) }
func (i isa) xor(a Op, b, out VecVirtual) { i.bitwise(VXORPS, VPXORD, a, b, out) }
func (i isa) or(a Op, b, out VecVirtual)  { i.bitwise(VORPS, VPORD, a, b, out) }

func (i isa) bitwise(avx2, avx512 func(ops ...Op), a Op, b, out VecVirtual) {
	if i.lanes == 16 {
		avx512(a, b, out)
	} else {
		avx2(a, b, out)
	}
}

// all fills a register with a constant.
func (i isa) all(c Mem) VecVirtual { return broadcast(c, i.lanes) }

// zeroed is a register of zeros.
func (i isa) zeroed() VecVirtual { return zeroed(i.lanes) }

// all fills a register of 8 lanes with a constant.
func all(c Mem) VecVirtual { return broadcast(c, 8) }
