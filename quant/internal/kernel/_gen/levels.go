package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// weightsAhead is how far ahead weights are prefetched while others are coded: those of the next
// tiles, which have to come from memory bit by bit, as a processor drops what it cannot take.
const weightsAhead = 8192

// encode is that of the scalar kernel: it normalizes weights, and codes them.
func encode(i isa, e element, kind string) {
	function("encode"+kind+e.name+i.name, "func(codes *byte, grid *float32, weights *byte, groups, groupSize int, normal, inverse, offset *float32)",
		"Codes of each group, one byte each.")
	codes, grid, weights, normals, inverses, offsets := pointer("codes"), pointer("grid"), pointer("weights"), pointer("normal"), pointer("inverse"), pointer("offset")
	n := newNearest(i, kind, grid)
	n.keepCodes()
	order := i.get(orders[orderKey{i.lanes / 4, false}])
	coderOf := func(group int) (coder [3]VecVirtual) {
		for k, p := range []GPVirtual{normals, inverses, offsets} {
			coder[k] = i.all(Mem{Base: p, Disp: 4 * group})
		}
		return coder
	}
	code := func(coder [3]VecVirtual, lanes, at int) VecVirtual {
		y := vector(i.lanes)
		e.loadInto(lower(y, lanes), Mem{Base: weights, Disp: at * e.size})
		VMULPS(coder[0], y, y)
		VMULPS(coder[1], y, y)
		VADDPS(coder[2], y, y)
		return n.code(y)
	}
	four := func(coderAt func(k int) [3]VecVirtual) {
		var v [4]VecVirtual
		for at := 0; at < 4*i.lanes*e.size; at += 64 { // once a cache line
			PREFETCHT1(Mem{Base: weights, Disp: at + weightsAhead})
		}
		for k := range v {
			v[k] = code(coderAt(k), i.lanes, k*i.lanes)
		}
		VMOVUPS(narrowed(v, order), Mem{Base: codes})
	}
	advance := func(elements int) {
		ADDQ(I32(int32(elements*e.size)), weights)
		ADDQ(I32(int32(elements)), codes)
	}
	next := func(groups int) {
		for _, p := range []GPVirtual{normals, inverses, offsets} {
			ADDQ(I32(int32(4*groups)), p)
		}
	}
	groups, groupSize := pointer("groups"), pointer("groupSize")
	i.forSmallGroups(groups, groupSize, func(vectors int) {
		four(func(k int) [3]VecVirtual { return coderOf(k / vectors) })
		advance(4 * i.lanes)
		next(4 / vectors)
	})
	each("code", groups, func() {
		coder := coderOf(0)
		i.forSteps(groupSize, steps{body: func(lanes, at int) {
			i.storeCodes(code(coder, lanes, at), lanes, Mem{Base: codes, Disp: at})
		}, four: func() {
			four(func(int) [3]VecVirtual { return coder })
		}, advance: advance})
		next(1)
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
		i.addSums(Mem{Base: weights, Disp: 4 * at}, Mem{Base: decoded, Disp: 4 * at}, lanes, magnitude, totals)
	}, advance: func(elements int) {
		ADDQ(I32(int32(4*elements)), weights)
		ADDQ(I32(int32(4*elements)), decoded)
	}})
	i.storeTotals(totals, to)
	VZEROUPPER()
	RET()
}
