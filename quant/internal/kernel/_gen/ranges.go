package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// patterns is how to compare weights of a size by their bits. A sign comes
// before the magnitude. So the largest signed integer is the largest weight,
// unless all have a sign, and the largest unsigned one the smallest weight,
// unless none has; in these cases the least unsigned one is.
type patterns struct {
	maxSigned, maxUnsigned, minUnsigned func(...Op)
	signs                               Mem
}

func (e element) patterns() patterns {
	if e.size == 2 {
		return patterns{VPMAXSW, VPMAXUW, VPMINUW, signs16}
	}
	return patterns{VPMAXSD, VPMAXUD, VPMINUD, signBit}
}

// infinity is the pattern of a type, in the upper bits, without its sign.
func (e element) infinity() uint32 {
	if e.name == "Float16" {
		return 0x7c00 << 17
	}
	return 0x7f80 << 17
}

// ranges finds the smallest and the largest weight of each group.
func ranges(i isa, e element) {
	function("ranges"+e.name+i.name, "func(weights *byte, groups, groupSize int, lo, hi *float32, ahead int) (nonFinite bool)",
		"Smallest and largest weight of each group. If nonFinite, they are undefined. Some of the weights this many bytes ahead are prefetched.")
	weights, lo, hi, ahead := pointer("weights"), pointer("lo"), pointer("hi"), pointer("ahead")
	p := e.patterns()
	groups, groupSize := pointer("groups"), pointer("groupSize")
	var largest GPVirtual // magnitude, doubled
	if e.name == "Float32" {
		largest = i.rangesTogether(weights, lo, hi, groups, groupSize)
	} else {
		largest = i.shortsTogether(e, weights, lo, hi, groups, groupSize)
	}
	signs, ones := broadcast(p.signs, i.lanes), broadcast(allOnes, i.lanes)
	each("ranges", groups, func() {
		signed, unsigned, least := vector(i.lanes), zeroed(i.lanes), vector(i.lanes)
		VMOVAPS(signs, signed)
		VMOVAPS(ones, least)
		look := func(at, size int) {
			v := i.loadRepeated(Mem{Base: weights, Disp: at}, size)
			p.maxSigned(v, signed, signed)
			p.maxUnsigned(v, unsigned, unsigned)
			p.minUnsigned(v, least, least)
		}
		i.forSteps(groupSize, steps{body: func(lanes, at int) {
			look(at*e.size, lanes*e.size)
		}, four: func() {
			prefetchAhead(weights, ahead, 0, ofRanges(e, 4*i.lanes))
			for at := 0; at < 4*i.lanes*e.size; at += 4 * i.lanes {
				look(at, 4*i.lanes)
			}
		}, advance: func(elements int) {
			ADDQ(I32(int32(elements*e.size)), weights)
		}})
		low := e.reduce(unsigned, p.maxUnsigned, allOnes)
		high := e.reduce(signed, p.maxSigned, magnitudes16)
		other := e.reduce(least, p.minUnsigned, Mem{})
		for _, end := range []GPVirtual{low, high} {
			magnitude := GP32()
			MOVL(end, magnitude)
			ADDL(magnitude, magnitude)
			CMPL(magnitude, largest)
			CMOVLHI(magnitude, largest)
		}
		TESTL(low, low)
		CMOVLPL(other, low)
		TESTL(high, high)
		CMOVLMI(other, high)
		e.store(low, Mem{Base: lo})
		e.store(high, Mem{Base: hi})
		ADDQ(I32(4), lo)
		ADDQ(I32(4), hi)
	})
	CMPL(largest, U32(e.infinity()))
	result := GP8()
	SETCC(result)
	VZEROUPPER()
	Store(result, Return("nonFinite"))
	RET()
}

// ofRanges is how many cache lines of so many weights the ranges prefetch: half, the codes the others.
// With weights of 16 bits the codes prefetch all, as they take the longer time.
func ofRanges(e element, weights int) int {
	if e.name != "Float32" {
		return 0
	}
	return lines(weights*e.size) / 2
}

// loadRepeated fills a register with size bytes, as often as they fit.
func (i isa) loadRepeated(address Mem, size int) VecVirtual {
	v := vector(i.lanes)
	switch {
	case size == 4*i.lanes:
		VMOVUPS(address, v)
	case size == 32:
		VBROADCASTI64X4(address, v)
	case i.lanes == 16:
		VBROADCASTI32X4(address, v)
	default:
		VBROADCASTI128(address, v)
	}
	return v
}

// reduce joins all patterns of a register into one, in the upper bits. Of
// patterns of 16 bits there is an instruction for the least unsigned one, which
// the wanted one is after flipping some bits.
func (e element) reduce(v VecVirtual, join func(...Op), flipped Mem) GPVirtual {
	if v.Size() == 64 {
		upper := YMM()
		VEXTRACTI64X4(U8(1), v, upper)
		join(upper, v.AsY(), upper)
		v = upper
	}
	x, result := XMM(), GP32()
	VEXTRACTI128(U8(1), v, x)
	join(x, v.AsX(), x)
	if e.size == 2 {
		if flipped.Symbol.Name != "" {
			bits := XMM()
			VBROADCASTSS(flipped, bits)
			VPXOR(bits, x, x)
		}
		VPHMINPOSUW(x, x)
		VMOVD(x, result)
		switch flipped {
		case allOnes:
			NOTL(result)
		case magnitudes16:
			XORL(U32(0x7fff), result)
		}
		SHLL(U8(16), result)
		return result
	}
	y := XMM()
	VPSHUFD(U8(0b1110), x, y)
	join(y, x, x)
	VPSHUFD(U8(0b01), x, y)
	join(y, x, x)
	VMOVD(x, result)
	return result
}

// store widens a pattern in the upper bits to float32.
func (e element) store(bits GPVirtual, to Mem) {
	if e.name != "Float16" {
		MOVL(bits, to)
		return
	}
	x := XMM()
	SHRL(U8(16), bits)
	VMOVD(bits, x)
	VCVTPH2PS(x, x)
	VMOVSS(x, to)
}
