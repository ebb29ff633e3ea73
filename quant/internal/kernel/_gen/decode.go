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
	i.decode(func(code VecVirtual) VecVirtual {
		VCVTDQ2PS(code, code)
		return code
	})
}

// decodeLevels decodes codes that stand for 16 levels.
func decodeLevels(i isa) {
	function("decodeLevels"+i.name, "func(codes *byte, levels *float32, groups, groupSize int, scale, zeroPoint *byte, weights *byte)",
		"Decoded float32 weights of each group, whose codes stand for 16 levels.")
	table := pointer("levels")
	var levels []VecVirtual
	for k := range i.parts() {
		levels = append(levels, i.get(i.lane(table, 0, k)))
	}
	i.decode(func(code VecVirtual) VecVirtual {
		level := vector(i.lanes)
		VPERMPS(levels[0], code, level)
		if i.lanes == 8 {
			high := YMM()
			VPERMPS(levels[1], code, high)
			VPSLLD(U8(28), code, code) // its fourth bit becomes the sign
			VBLENDVPS(code, high, level, level)
		}
		return level
	})
}

// decodeE4M3 decodes codes that are numbers of E4M3, as floatFormat.value does.
func decodeE4M3(i isa) {
	function("decodeE4M3"+i.name, "func(codes *byte, groups, groupSize int, scale, zeroPoint *byte, weights *byte)",
		"Decoded float32 weights of each group, whose codes are numbers of E4M3.")
	sign, toFloat32, largest := i.all(signBit), i.all(e4m3ToFloat32), i.all(e4m3Largest)
	i.decode(func(code VecVirtual) VecVirtual {
		signed := vector(i.lanes)
		VPSLLD(U8(24), code, signed)
		i.and(sign, signed, signed)
		VPSLLD(U8(25), code, code)
		VPSRLD(U8(5), code, code)
		VMULPS(toFloat32, code, code)
		VMINPS(largest, code, code)
		i.or(signed, code, code)
		return code
	})
}

// decode decodes each group, given how a code becomes a number.
func (i isa) decode(number func(code VecVirtual) VecVirtual) {
	codes, scales, zeroPoints, weights := pointer("codes"), pointer("scale"), pointer("zeroPoint"), pointer("weights")
	forGroups("decode", func(groupSize GPVirtual) {
		scale, zeroPoint := i.all(Mem{Base: scales}), i.all(Mem{Base: zeroPoints})
		i.forSteps(groupSize, steps{body: func(lanes, at int) {
			code := vector(i.lanes)
			VPMOVZXBD(Mem{Base: codes, Disp: at}, lower(code, lanes))
			d := number(code)
			VSUBPS(zeroPoint, d, d)
			VMULPS(scale, d, d)
			VMOVUPS(lower(d, lanes), Mem{Base: weights, Disp: 4 * at})
		}, advance: func(elements int) {
			ADDQ(I32(int32(elements)), codes)
			ADDQ(I32(int32(4*elements)), weights)
		}})
		ADDQ(I32(4), scales)
		ADDQ(I32(4), zeroPoints)
	})
	VZEROUPPER()
	RET()
}
