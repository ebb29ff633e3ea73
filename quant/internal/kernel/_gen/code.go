package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// code computes the codes of each group, one byte each.
func code(i isa, e element) {
	function("code"+e.name+i.name, "func(weights *byte, groups, groupSize int, inverse, zeroPoint *float32, maxCode float32, codes *byte, ahead int)",
		"Codes of each group, one byte each; before they are clipped, they are integers of 32 bits. Of weights this many bytes ahead those are prefetched that ranges do not prefetch.")
	weights, inverses, zeroPoints, codes, ahead := pointer("weights"), pointer("inverse"), pointer("zeroPoint"), pointer("codes"), pointer("ahead")
	maxCode := vector(i.lanes)
	VBROADCASTSS(argument("maxCode"), maxCode) // no legacy SSE beside vectors
	VCVTPS2DQ(maxCode, maxCode)
	zero, four := zeroed(i.lanes), newFour(i, e, maxCode)
	forGroups("code", func(groupSize GPVirtual) {
		inverse, zeroPoint := broadcast(Mem{Base: inverses}, i.lanes), broadcast(Mem{Base: zeroPoints}, i.lanes)
		quantize := func(v VecVirtual, lanes int) VecVirtual {
			VMULPS(lower(inverse, lanes), v, v)
			VADDPS(lower(zeroPoint, lanes), v, v)
			VCVTPS2DQ(v, v)
			return v
		}
		i.forSteps(groupSize, steps{body: func(lanes, at int) {
			prefetchAhead(weights, ahead, lines(at*e.size), lines((at+lanes)*e.size))
			v := quantize(e.load(Mem{Base: weights, Disp: at * e.size}, lanes), lanes)
			VPMAXSD(lower(zero, lanes), v, v)
			VPMINSD(lower(maxCode, lanes), v, v)
			i.storeBytes(v, Mem{Base: codes, Disp: at})
		}, four: func() {
			prefetchAhead(weights, ahead, ofRanges(e, 4*i.lanes), lines(4*i.lanes*e.size))
			v := four.load(Mem{Base: weights})
			for k := range v {
				quantize(v[k], i.lanes)
			}
			VMOVUPS(four.narrow(v), Mem{Base: codes})
		}, advance: func(elements int) {
			ADDQ(I32(int32(elements*e.size)), weights)
			ADDQ(I32(int32(elements)), codes)
		}})
		ADDQ(I32(4), inverses)
		ADDQ(I32(4), zeroPoints)
	})
	VZEROUPPER()
	RET()
}

// storeBytes narrows integers of 0 .. 255 to bytes.
func (i isa) storeBytes(v VecVirtual, to Mem) {
	if i.lanes == 16 {
		VPMOVDB(v, to)
		return
	}
	upper := XMM()
	VEXTRACTI128(U8(1), v, upper)
	VPACKUSDW(upper, v.AsX(), upper)
	VPACKUSWB(upper, upper, upper)
	VMOVQ(upper, to)
}
