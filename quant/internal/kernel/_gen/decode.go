package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// decodeCodes turns codes into float32 weights.
func decodeCodes(i isa) {
	function("decode"+i.name, "func(codes *byte, groups, groupSize int, scale, zeroPoint *byte, weights *byte)",
		"Decoded float32 weights of each group.")
	codes, scales, zeroPoints, weights := pointer("codes"), pointer("scale"), pointer("zeroPoint"), pointer("weights")
	forGroups("decode", func(groupSize GPVirtual) {
		scale, zeroPoint := broadcast(Mem{Base: scales}, i.lanes), broadcast(Mem{Base: zeroPoints}, i.lanes)
		i.forSteps(groupSize, steps{body: func(lanes, at int) {
			d := loadCodes(Mem{Base: codes, Disp: at}, lanes)
			VSUBPS(lower(zeroPoint, lanes), d, d)
			VMULPS(lower(scale, lanes), d, d)
			VMOVUPS(d, Mem{Base: weights, Disp: 4 * at})
		}, advance: func(elements int) {
			ADDQ(I32(int32(elements)), codes)
			ADDQ(I32(int32(elements*4)), weights)
		}})
		ADDQ(I32(4), scales)
		ADDQ(I32(4), zeroPoints)
	})
	VZEROUPPER()
	RET()
}
