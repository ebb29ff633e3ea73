package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// codeLevels is that of the scalar kernel.
func codeLevels(i isa, kind string) {
	function("codeLevels"+kind+i.name, "func(codes *byte, grid, weights *float32, groups, groupSize int, inverse, offset *float32)",
		"Codes of each group, one byte each.")
	codes, grid, weights, inverses, offsets := pointer("codes"), pointer("grid"), pointer("weights"), pointer("inverse"), pointer("offset")
	n := newNearest(i, kind, grid)
	n.keep()
	forGroups("code", func(groupSize GPVirtual) {
		inverse, offset := i.all(Mem{Base: inverses}), i.all(Mem{Base: offsets})
		i.forSteps(groupSize, steps{body: func(lanes, at int) {
			y := vector(i.lanes)
			VMOVUPS(Mem{Base: weights, Disp: 4 * at}, lower(y, lanes))
			VMULPS(inverse, y, y)
			VADDPS(offset, y, y)
			var code VecVirtual
			switch kind {
			case "Even":
				code = n.level(y)
				VSUBPS(n.repeated(gridLow), code, code)
				VCVTPS2DQ(code, code)
			case "Table":
				code = n.permuted(n.place(y), gridCodes, gridLowerCodes, gridUpperCodes)
			default:
				code = n.floatCode(y)
			}
			i.storeCodes(code, lanes, Mem{Base: codes, Disp: at})
		}, advance: func(elements int) {
			ADDQ(I32(int32(4*elements)), weights)
			ADDQ(I32(int32(elements)), codes)
		}})
		ADDQ(I32(4), inverses)
		ADDQ(I32(4), offsets)
	})
	VZEROUPPER()
	RET()
}

// storeCodes narrows integers of 0 .. 255 to bytes, of which it stores those of so many lanes.
func (i isa) storeCodes(v VecVirtual, lanes int, to Mem) {
	if lanes == i.lanes {
		i.storeBytes(v, to)
		return
	}
	narrow := XMM()
	VPMOVDB(v, narrow)
	VMOVQ(narrow, to)
}

// normalizeWeights is normalize.
func normalizeWeights(i isa, e element) {
	function("normalizeWeights"+e.name+i.name, "func(out *float32, weights *byte, groups, groupSize int, factors *float32)",
		"Widens the weights of each group, and multiplies them.")
	out, weights, factors := pointer("out"), pointer("weights"), pointer("factors")
	forGroups("normalize", func(groupSize GPVirtual) {
		factor := i.all(Mem{Base: factors})
		i.forSteps(groupSize, steps{body: func(lanes, at int) {
			v := e.load(Mem{Base: weights, Disp: at * e.size}, lanes)
			VMULPS(lower(factor, lanes), v, v)
			VMOVUPS(v, Mem{Base: out, Disp: 4 * at})
		}, advance: func(elements int) {
			ADDQ(I32(int32(elements*e.size)), weights)
			ADDQ(I32(int32(4*elements)), out)
		}})
		ADDQ(I32(4), factors)
	})
	VZEROUPPER()
	RET()
}

// normalizeEnds is that of the scalar kernel.
func normalizeEnds(i isa) {
	function("normalizeEnds"+i.name, "func(lo, hi, normal, inverse *float32, n int)",
		"Multiplies the ends of n groups by powers of two, which it gives, and their reciprocals. Slices are rounded up to 16 groups.")
	lows, highs, normals, inverses, left := pointer("lo"), pointer("hi"), pointer("normal"), pointer("inverse"), pointer("n")
	zero, least, most, subnormal := i.zeroed(), i.all(smallestExponent), i.all(twoBiases), i.all(halfSmallest)
	Label("next")
	lo, hi, largest, normal := i.get(Mem{Base: lows}), i.get(Mem{Base: highs}), vector(i.lanes), vector(i.lanes)
	VSUBPS(lo, zero, largest)
	VMAXPS(hi, largest, largest)
	VMAXPS(zero, largest, largest)
	VPSRLD(U8(23), largest, largest)
	VPMAXSD(least, largest, largest)
	VPSUBD(largest, most, normal)
	VPSLLD(U8(23), largest, largest)
	VPSLLD(U8(23), normal, normal)
	VPMAXSD(subnormal, normal, normal)
	VMULPS(normal, lo, lo)
	VMULPS(normal, hi, hi)
	for k, p := range []GPVirtual{lows, highs, normals, inverses} {
		VMOVUPS([]VecVirtual{lo, hi, normal, largest}[k], Mem{Base: p})
		ADDQ(I32(int32(4*i.lanes)), p)
	}
	SUBQ(I32(int32(i.lanes)), left)
	JG(LabelRef("next"))
	VZEROUPPER()
	RET()
}

// decodedSums adds the errors of decoded weights.
func decodedSums(i isa) {
	function("decodedSums"+i.name, "func(weights, decoded *float32, n int, sums *float64)", "Adds the errors of n weights, a multiple of 8, to the lanes of laneSums.")
	weights, decoded, to := pointer("weights"), pointer("decoded"), pointer("sums")
	magnitude := vector(i.lanes)
	VBROADCASTSD(magnitudeMask, magnitude)
	totals := i.loadTotals(to)
	i.forSteps(pointer("n"), steps{body: func(lanes, at int) {
		w, d := vector(lanes), vector(lanes)
		VMOVUPS(Mem{Base: weights, Disp: 4 * at}, w)
		VMOVUPS(Mem{Base: decoded, Disp: 4 * at}, d)
		i.addSums(w, d, lanes, magnitude, totals)
	}, advance: func(elements int) {
		ADDQ(I32(int32(4*elements)), weights)
		ADDQ(I32(int32(4*elements)), decoded)
	}})
	i.storeTotals(totals, to)
	VZEROUPPER()
	RET()
}
