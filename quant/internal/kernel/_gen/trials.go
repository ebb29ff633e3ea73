package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// The functions of this file are for encodings: every lane is a trial of the same group, or
// a weight of one.

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
)

// nearest finds the levels nearest to numbers.
type nearest struct {
	kind string
	grid GPVirtual
}

func newNearest(kind string, grid GPVirtual) *nearest {
	return &nearest{kind: kind, grid: grid}
}

func (n *nearest) at(k int) Mem { return Mem{Base: n.grid, Disp: 32 * k} }

// level puts the level nearest to y in its place.
func (n *nearest) level(y VecVirtual) VecVirtual {
	switch n.kind {
	case "Even":
		VMAXPS(n.at(gridLow), y, y)
		VMINPS(n.at(gridHigh), y, y)
		VROUNDPS(U8(0), y, y)
		return y
	case "Table":
		place, upper := n.place(y)
		return n.permuted(place, upper, gridLowerLevels, gridUpperLevels)
	default:
		return n.rounded(y)
	}
}

// place is minus where in the table the level nearest to y is, and whether that is in the
// upper half.
func (n *nearest) place(y VecVirtual) (place, upper VecVirtual) {
	upper, place = YMM(), YMM()
	bound, found := YMM(), YMM()
	VCMPPS(U8(30), n.at(gridEighth), y, upper) // >
	VMOVUPS(n.at(gridFourth), bound)
	VBLENDVPS(upper, n.at(gridTwelfth), bound, bound)
	VCMPPS(U8(30), bound, y, found)
	VPADDD(upper, upper, place)
	VPADDD(found, place, place)
	for _, bounds := range []int{gridThirds, gridOdds} {
		VPERMPS(n.at(bounds), place, bound)
		VCMPPS(U8(30), bound, y, found)
		VPADDD(place, place, place)
		VPADDD(found, place, place)
	}
	return place, upper
}

func (n *nearest) permuted(place, upper VecVirtual, lower, higher int) VecVirtual {
	low, high := YMM(), YMM()
	VPERMPS(n.at(lower), place, low)
	VPERMPS(n.at(higher), place, high)
	VBLENDVPS(upper, high, low, low)
	return low
}

// rounded is floatFormat.round.
func (n *nearest) rounded(y VecVirtual) VecVirtual {
	VMAXPS(n.at(gridLow), y, y)
	VMINPS(n.at(gridHigh), y, y)
	magic := YMM()
	VANDPS(all(infinity), y, magic)
	VMAXPS(n.at(gridSmallestNormal), magic, magic)
	VMULPS(n.at(gridMagic), magic, magic)
	VADDPS(magic, y, y)
	VSUBPS(magic, y, y)
	return y
}

// coder is that of the scalar kernel, for 8 trials.
func coder(scale, minimum VecVirtual) (inverse, offset VecVirtual) {
	inverse, offset = YMM(), YMM()
	zero := YMM()
	VDIVPS(scale, all(one), inverse)
	VCMPPS(U8(4), zeroed(8), scale, zero) // not equal
	VANDPS(zero, inverse, inverse)
	VMULPS(inverse, minimum, offset)
	return inverse, offset
}

// Offsets in a trials: scales, then minimums, each of two halves.
func lane(base GPVirtual, array, half int) Mem {
	return Mem{Base: base, Disp: array*laneBytes + 32*half}
}

func get(address Mem) VecVirtual {
	v := YMM()
	VMOVUPS(address, v)
	return v
}

// forWeights emits a loop over the weights of a group, with their importance if weighted.
// Each takes a name for its labels.
func forWeights(name string, weighted bool, each func(w, h VecVirtual)) {
	weights, importance, left := GP64(), GP64(), GP64()
	MOVQ(argument("weights"), weights)
	MOVQ(argument("n"), left)
	if weighted {
		MOVQ(argument("importance"), importance)
	}
	Label(name)
	var h VecVirtual
	if weighted {
		h = all(Mem{Base: importance})
		ADDQ(I32(4), importance)
	}
	each(all(Mem{Base: weights}), h)
	ADDQ(I32(4), weights)
	DECQ(left)
	JNZ(LabelRef(name))
}

// trial is 8 trials while sums are made of them.
type trial struct {
	scale, minimum, inverse, offset VecVirtual
	level, levelLevel, levelWeight  VecVirtual // sums
}

// add counts a weight. Squares of even levels are exact.
func (t *trial) add(n *nearest, w, h VecVirtual) {
	y := YMM()
	VMULPS(w, t.inverse, y)
	if t.offset != nil {
		VADDPS(t.offset, y, y)
	}
	level := n.level(y)
	weighted := level
	if h != nil {
		weighted = YMM()
		VMULPS(level, h, weighted)
	}
	if t.level != nil {
		VADDPS(weighted, t.level, t.level)
	}
	product := YMM()
	VMULPS(w, weighted, product)
	VADDPS(product, t.levelWeight, t.levelWeight)
	if h == nil && n.kind == "Even" {
		VFMADD231PS(level, level, t.levelLevel)
		return
	}
	VMULPS(weighted, level, level)
	VADDPS(level, t.levelLevel, t.levelLevel)
}

// variants are of functions that weigh by importance or not.
var variants = []struct {
	suffix   string
	weighted bool
}{{"", false}, {"Weighted", true}}

// minimumSearch is searchMinimumTrials.
func minimumSearch(suffix string, weighted bool) {
	function("minimumSearch"+suffix, "func(found, pattern, grid, weights, importance *float32, n int, count, weight, square, inverse float32)",
		"The best scale and minimum for the codes that one of 16 trials about found gives.")
	found, pattern, grid := pointer("found"), pointer("pattern"), pointer("grid")
	results := AllocLocal(4 * laneBytes) // scales, minimums, levels, costs
	promises := [2]VecVirtual{}
	var trials [2]*trial
	for k := range trials {
		scale := all(Mem{Base: found})
		s, m := YMM(), YMM()
		VMULPS(lane(pattern, 1, k), scale, m)
		VADDPS(all(Mem{Base: found, Disp: 4}), m, m)
		VMAXPS(zeroed(8), m, m)
		VMULPS(lane(pattern, 0, k), scale, s)
		t := &trial{scale: s, minimum: m, level: zeroed(8), levelLevel: zeroed(8), levelWeight: zeroed(8)}
		t.inverse, t.offset = coder(s, m)
		trials[k] = t
	}
	n := newNearest("Even", grid)
	forWeights("weight", weighted, func(w, h VecVirtual) {
		for _, t := range trials {
			t.add(n, w, h)
		}
	})
	for k, t := range trials {
		weight, square, inverse := all(argument("weight")), all(argument("square")), all(argument("inverse"))
		v, cost, scale, minimum := YMM(), YMM(), YMM(), YMM()
		VMULPS(t.level, t.level, v)
		VMULPS(inverse, v, v)
		VSUBPS(v, t.levelLevel, cost)
		VMULPS(weight, t.level, v)
		VMULPS(inverse, v, v)
		VSUBPS(v, t.levelWeight, scale)
		VDIVPS(cost, scale, scale)
		VMULPS(t.level, scale, minimum)
		VSUBPS(weight, minimum, minimum)
		VMULPS(inverse, minimum, minimum)
		positive, without := YMM(), YMM()
		VCMPPS(U8(30), zeroed(8), minimum, positive) // >
		VDIVPS(t.levelLevel, t.levelWeight, without)
		VBLENDVPS(positive, scale, without, scale)
		VANDPS(positive, minimum, minimum)
		promise := YMM()
		VMULPS(t.levelWeight, scale, promise)
		VSUBPS(promise, square, promise)
		VMULPS(weight, minimum, v)
		VADDPS(v, promise, promise)
		VCMPPS(U8(30), zeroed(8), scale, positive)
		VCMPPS(U8(30), zeroed(8), cost, without)
		VANDPS(without, positive, positive)
		VBLENDVPS(positive, promise, all(infinity), promise)
		promises[k] = promise
		for array, v := range []VecVirtual{scale, minimum, t.level, cost} {
			VMOVUPS(v, results.Offset(array*laneBytes+32*k))
		}
	}
	least, best := leastOf(promises)
	VUCOMISS(infinity, least.AsX())
	JAE(LabelRef("none"))
	values := GP64()
	LEAQ(results, values)
	take := func(array int) VecVirtual {
		v := XMM()
		VMOVSS(Mem{Base: values, Index: best, Scale: 4, Disp: array * laneBytes}, v)
		return v
	}
	put := func(v VecVirtual, field int) { VMOVSS(v, Mem{Base: found, Disp: 4 * field}) }
	put(take(0), 0)
	put(take(1), 1)
	slope := take(2)
	VMULSS(argument("inverse"), slope, slope)
	put(slope, 2)
	put(take(3), 3)
	count := XMM()
	VMOVSS(argument("count"), count)
	put(count, 4)
	Label("none")
	VZEROUPPER()
	RET()
}

// leastOf gives the least of 16 numbers, in all lanes, and the first place where it is.
func leastOf(v [2]VecVirtual) (least VecVirtual, place GPVirtual) {
	least, other := YMM(), YMM()
	VMINPS(v[1], v[0], least)
	VPERM2F128(U8(1), least, least, other)
	VMINPS(other, least, least)
	VPERMILPS(U8(0x4e), least, other)
	VMINPS(other, least, least)
	VPERMILPS(U8(0xb1), least, other)
	VMINPS(other, least, least)
	lower, upper := GP32(), GP32()
	for k, mask := range []GPVirtual{lower, upper} {
		VCMPPS(U8(0), least, v[k], other) // equal
		VMOVMSKPS(other, mask)
	}
	SHLL(U8(8), upper)
	ORL(upper, lower)
	ORL(U32(1<<15), lower) // whatever NaN compares to
	place = GP64()
	BSFL(lower, place.As32())
	return least, place
}

// scaleSearch is searchScaleTrials.
func scaleSearch(kind, suffix string, weighted bool) {
	function("scaleSearch"+kind+suffix, "func(pattern, grid, weights, importance *float32, n int, scale float32) (best float32)",
		"The best scale for the codes that one of 16 trials gives, parts of scale, or scale if there is none.")
	pattern, grid := pointer("pattern"), pointer("grid")
	scales := AllocLocal(laneBytes)
	losses := [2]VecVirtual{}
	n := newNearest(kind, grid)
	var trials [2]*trial
	start := func(k int) {
		s := all(argument("scale"))
		VMULPS(lane(pattern, 0, k), s, s)
		t := &trial{scale: s, levelLevel: zeroed(8), levelWeight: zeroed(8)}
		t.inverse, _ = coder(s, s)
		trials[k] = t
	}
	finish := func(k int) {
		t := trials[k]
		best, gain, loss, positive := YMM(), YMM(), zeroed(8), YMM()
		VDIVPS(t.levelLevel, t.levelWeight, best)
		VMULPS(t.levelWeight, best, gain)
		VSUBPS(gain, loss, loss)
		VCMPPS(U8(30), zeroed(8), gain, positive) // and no NaN
		VANDPS(positive, loss, loss)
		VMOVUPS(best, scales.Offset(32*k))
		losses[k] = loss
	}
	if kind != "Table" {
		start(0)
		start(1)
		forWeights("weight", weighted, func(w, h VecVirtual) {
			for _, t := range trials {
				t.add(n, w, h)
			}
		})
		finish(0)
		finish(1)
	} else { // which need more registers
		for k, name := range []string{"lower", "upper"} {
			start(k)
			forWeights(name, weighted, func(w, h VecVirtual) { trials[k].add(n, w, h) })
			finish(k)
		}
	}
	least, place := leastOf(losses)
	best := XMM()
	VMOVSS(argument("scale"), best)
	zero := zeroed(8)
	VUCOMISS(least.AsX(), zero.AsX())
	JBE(LabelRef("none"))
	values := GP64()
	LEAQ(scales, values)
	VMOVSS(Mem{Base: values, Index: place, Scale: 4}, best)
	Label("none")
	result, err := Return("best").Resolve()
	if err != nil {
		panic(err)
	}
	VMOVSS(best, result.Addr)
	VZEROUPPER()
	RET()
}

// trialErrors is addTrialErrors.
func trialErrors(kind, suffix string, weighted bool) {
	function("trialErrors"+kind+suffix, "func(errors, trials *float32, grid *float32, weights, importance *float32, n int)",
		"Adds to the squared errors of 16 trials over n weights, of which there is one at least.")
	errors, trials, grid := pointer("errors"), pointer("trials"), pointer("grid")
	n := newNearest(kind, grid)
	var halves []*errorTrial
	for k := range n.halves() {
		e := &errorTrial{scale: get(lane(trials, 0, k)), minimum: get(lane(trials, 1, k)), total: get(lane(errors, 0, k))}
		e.inverse, e.offset = coder(e.scale, e.minimum)
		if kind != "Even" {
			e.minimum, e.offset = nil, nil
		}
		halves = append(halves, e)
	}
	addErrors(n, weighted, halves)
	for k, e := range halves {
		VMOVUPS(e.total, lane(errors, 0, k))
	}
	VZEROUPPER()
	RET()
}

// levelSearch is searchLevels.
func levelSearch(suffix string, weighted bool) {
	function("levelSearch"+suffix, "func(levels, grid, weights, importance *float32, n int, normal float32) (lane int)",
		"The lane of the level that is the scale of least error, or 0 for that in the middle.")
	levels, grid := pointer("levels"), pointer("grid")
	n := newNearest("Float", grid)
	plain, normal := all(lane(levels, 0, 1)), all(argument("normal"))
	var halves []*errorTrial
	for k := range n.halves() {
		scale := get(lane(levels, 0, k))
		if k == 0 {
			VBLENDPS(U8(1), plain, scale, scale)
		}
		VMULPS(normal, scale, scale)
		e := &errorTrial{scale: scale, total: zeroed(8)}
		e.inverse, _ = coder(scale, scale)
		halves = append(halves, e)
	}
	addErrors(n, weighted, halves)
	own, gain := XMM(), XMM()
	VMOVAPS(halves[0].total.AsX(), own)
	VMULSS(leastGain, own, gain)
	VSUBSS(gain, own, own)
	VBLENDPS(U8(1), all(infinity), halves[0].total, halves[0].total)
	least, place := leastOf([2]VecVirtual{halves[0].total, halves[1].total})
	VUCOMISS(least.AsX(), own)
	JA(LabelRef("better"))
	XORL(place.As32(), place.As32())
	Label("better")
	Store(place, Return("lane"))
	VZEROUPPER()
	RET()
}

// errorTrial is 8 trials while errors are added up; without minimum and offset, these are 0.
type errorTrial struct{ scale, minimum, inverse, offset, total VecVirtual }

// halves is how many vectors of trials are tried: 8 of a table, which needs more registers.
func (n *nearest) halves() int {
	if n.kind == "Table" {
		return 1
	}
	return 2
}

// addErrors adds the errors of all weights.
func addErrors(n *nearest, weighted bool, halves []*errorTrial) {
	forWeights("errors", weighted, func(w, h VecVirtual) {
		for _, e := range halves {
			e.add(n, w, h)
		}
	})
}

func (e *errorTrial) add(n *nearest, w, h VecVirtual) {
	y := YMM()
	VMULPS(w, e.inverse, y)
	if e.offset != nil {
		VADDPS(e.offset, y, y)
	}
	rest := n.level(y)
	VMULPS(e.scale, rest, rest)
	if e.minimum != nil {
		VSUBPS(e.minimum, rest, rest)
	}
	VSUBPS(rest, w, rest)
	product := rest
	if h != nil {
		product = YMM()
		VMULPS(rest, h, product)
	}
	VMULPS(rest, product, rest)
	VADDPS(rest, e.total, e.total)
}

// leastTrial is that of the scalar kernel.
func leastTrial() {
	function("leastLane", "func(errors *float32) (lane int)", "The lane of the least error of all but the first, the first of several.")
	errors := pointer("errors")
	first := get(lane(errors, 0, 0))
	VBLENDPS(U8(1), all(infinity), first, first)
	_, place := leastOf([2]VecVirtual{first, get(lane(errors, 0, 1))})
	Store(place, Return("lane"))
	RET()
}

// factorSearch is searchFactors.
func factorSearch(kind, suffix string, weighted bool) {
	function("factorSearch"+kind+suffix, "func(found, pattern, units, plain, grid, weights, importance *float32, n int)",
		"The least error, and the scale and minimum of it, of multiples of units; and the error of the plain ones.")
	found, pattern, unit, plain := pointer("found"), pointer("pattern"), pointer("units"), pointer("plain")
	grid := pointer("grid")
	n := newNearest(kind, grid)
	field := func(base GPVirtual, k int) VecVirtual { return all(Mem{Base: base, Disp: 4 * k}) }
	least, most := field(unit, 4), field(unit, 5)
	multiple := func(v VecVirtual, per int, least VecVirtual) {
		VMULPS(field(unit, per), v, v)
		VMAXPS(least, v, v)
		VMINPS(most, v, v)
		VROUNDPS(U8(0), v, v)
	}
	factor := field(found, 0)
	multiple(factor, 2, least)
	kept := AllocLocal(2 * laneBytes) // scales, minimums
	var halves []*errorTrial
	for k := range n.halves() {
		scale, minimum := YMM(), YMM()
		VADDPS(lane(pattern, 0, k), factor, scale)
		VMAXPS(least, scale, scale)
		VMINPS(most, scale, scale)
		VMULPS(field(unit, 0), scale, scale)
		if kind == "Even" {
			VSUBPS(field(found, 0), scale, minimum)
			VMULPS(field(found, 2), minimum, minimum)
			VADDPS(field(found, 1), minimum, minimum)
			zero := zeroed(8)
			multiple(minimum, 3, zero)
			VADDPS(lane(pattern, 1, k), minimum, minimum)
			VMAXPS(zero, minimum, minimum)
			VMINPS(most, minimum, minimum)
			VMULPS(field(unit, 1), minimum, minimum)
		} else {
			VXORPS(minimum, minimum, minimum)
		}
		if k == 0 {
			VBLENDPS(U8(1), field(plain, 0), scale, scale)
			VBLENDPS(U8(1), field(plain, 1), minimum, minimum)
		}
		VMOVUPS(scale, kept.Offset(32*k))
		VMOVUPS(minimum, kept.Offset(laneBytes+32*k))
		e := &errorTrial{scale: scale, minimum: minimum, total: zeroed(8)}
		e.inverse, e.offset = coder(scale, minimum)
		if kind != "Even" {
			e.minimum, e.offset = nil, nil
		}
		halves = append(halves, e)
	}
	addErrors(n, weighted, halves)
	VMOVSS(halves[0].total.AsX(), Mem{Base: found, Disp: 4 * 6})
	VBLENDPS(U8(1), all(infinity), halves[0].total, halves[0].total)
	totals := [2]VecVirtual{halves[0].total, all(infinity)}
	if len(halves) > 1 {
		totals[1] = halves[1].total
	}
	error, place := leastOf(totals)
	VMOVSS(error.AsX(), Mem{Base: found, Disp: 4 * 5})
	values := GP64()
	LEAQ(kept, values)
	for k := range 2 {
		v := XMM()
		VMOVSS(Mem{Base: values, Index: place, Scale: 4, Disp: k * laneBytes}, v)
		VMOVSS(v, Mem{Base: found, Disp: 4 * k})
	}
	VZEROUPPER()
	RET()
}

// codeLevels is that of the scalar kernel.
func codeLevels(kind string) {
	function("codeLevels"+kind, "func(codes *byte, grid, weights *float32, groups, groupSize int, inverse, offset *float32)",
		"Codes of each group, one byte each.")
	codes, grid, weights, inverses, offsets := pointer("codes"), pointer("grid"), pointer("weights"), pointer("inverse"), pointer("offset")
	n := newNearest(kind, grid)
	forGroups("code", func(groupSize GPVirtual) {
		inverse, offset := all(Mem{Base: inverses}), all(Mem{Base: offsets})
		left := GP64()
		MOVQ(groupSize, left)
		Label("eight")
		y := YMM()
		VMULPS(Mem{Base: weights}, inverse, y)
		VADDPS(offset, y, y)
		var code VecVirtual
		switch kind {
		case "Even":
			code = n.level(y)
			VSUBPS(n.at(gridLow), code, code)
			VCVTPS2DQ(code, code)
		case "Table":
			place, upper := n.place(y)
			code = n.permuted(place, upper, gridLowerCodes, gridUpperCodes)
		default:
			code = n.floatCode(y)
		}
		isas[0].storeBytes(code, Mem{Base: codes})
		ADDQ(I32(32), weights)
		ADDQ(I32(8), codes)
		SUBQ(I32(8), left)
		JG(LabelRef("eight"))
		ADDQ(I32(4), inverses)
		ADDQ(I32(4), offsets)
	})
	VZEROUPPER()
	RET()
}

// floatCode is floatFormat.code.
func (n *nearest) floatCode(y VecVirtual) VecVirtual {
	shift, signShift := XMM(), XMM()
	VMOVUPS(n.at(gridShift), shift)
	VMOVUPS(n.at(gridShift).Offset(16), signShift)
	sign := YMM()
	VANDPS(all(signBit), y, sign)
	VPSRLD(signShift, sign, sign)
	rounded := n.rounded(y)
	VANDPS(all(magnitude32), rounded, rounded)
	small, isSmall := YMM(), YMM()
	VMULPS(n.at(gridPerSubnormal), rounded, small)
	VCVTPS2DQ(small, small)
	VCMPPS(U8(17), n.at(gridSmallestNormal), rounded, isSmall) // <
	VPSRLD(shift, rounded, rounded)
	VPSUBD(n.at(gridBias), rounded, rounded)
	VBLENDVPS(isSmall, small, rounded, rounded)
	VPOR(sign, rounded, rounded)
	return rounded
}

// normalizeWeights is normalize.
func normalizeWeights(e element) {
	function("normalizeWeights"+e.name, "func(out *float32, weights *byte, groups, groupSize int, factors *float32)",
		"Widens the weights of each group, and multiplies them.")
	out, weights, factors := pointer("out"), pointer("weights"), pointer("factors")
	forGroups("normalize", func(groupSize GPVirtual) {
		factor := all(Mem{Base: factors})
		left := GP64()
		MOVQ(groupSize, left)
		Label("eight")
		v := e.load(Mem{Base: weights}, 8)
		VMULPS(factor, v, v)
		VMOVUPS(v, Mem{Base: out})
		ADDQ(I32(int32(8*e.size)), weights)
		ADDQ(I32(32), out)
		SUBQ(I32(8), left)
		JG(LabelRef("eight"))
		ADDQ(I32(4), factors)
	})
	VZEROUPPER()
	RET()
}

// decodeLevels decodes codes that stand for levels.
func decodeLevels() {
	function("decodeLevels", "func(codes *byte, levels *float32, groups, groupSize int, scale, zeroPoint *byte, weights *byte)",
		"Decoded float32 weights of each group, whose codes stand for levels.")
	codes, levels, scales, zeroPoints, weights := pointer("codes"), pointer("levels"), pointer("scale"), pointer("zeroPoint"), pointer("weights")
	forGroups("decode", func(groupSize GPVirtual) {
		scale, zeroPoint := all(Mem{Base: scales}), all(Mem{Base: zeroPoints})
		left := GP64()
		MOVQ(groupSize, left)
		Label("eight")
		index, d, mask := YMM(), YMM(), YMM()
		VPMOVZXBD(Mem{Base: codes}, index)
		VPCMPEQD(mask, mask, mask)
		VGATHERDPS(mask, Mem{Base: levels, Index: index, Scale: 4}, d)
		VSUBPS(zeroPoint, d, d)
		VMULPS(scale, d, d)
		VMOVUPS(d, Mem{Base: weights})
		ADDQ(I32(8), codes)
		ADDQ(I32(32), weights)
		SUBQ(I32(8), left)
		JG(LabelRef("eight"))
		ADDQ(I32(4), scales)
		ADDQ(I32(4), zeroPoints)
	})
	VZEROUPPER()
	RET()
}

// decodedSums adds the errors of decoded weights.
func decodedSums() {
	function("decodedSums", "func(weights, decoded *float32, n int, sums *float64)", "Adds the errors of n weights, a multiple of 8, to the lanes of laneSums.")
	weights, decoded, left, to := pointer("weights"), pointer("decoded"), pointer("n"), pointer("sums")
	avx2 := isas[0]
	magnitude := YMM()
	VBROADCASTSD(magnitudeMask, magnitude)
	totals := avx2.loadTotals(to)
	Label("eight")
	avx2.addSums(get(Mem{Base: weights}), get(Mem{Base: decoded}), 8, magnitude, totals)
	ADDQ(I32(32), weights)
	ADDQ(I32(32), decoded)
	SUBQ(I32(8), left)
	JG(LabelRef("eight"))
	avx2.storeTotals(totals, to)
	VZEROUPPER()
	RET()
}

// unitCosts is addUnitCosts.
func unitCosts() {
	function("unitCosts", "func(costs, trials, group *float32, least, most float32)", "Adds what 16 units cost a group.")
	costs, trials, group := pointer("costs"), pointer("trials"), pointer("group")
	field := func(k int) VecVirtual { return all(Mem{Base: group, Disp: 4 * k}) }
	least, most := all(argument("least")), all(argument("most"))
	for k := range 2 {
		d, dmin := get(lane(trials, 0, k)), get(lane(trials, 1, k))
		perScale, _ := coder(d, dmin)
		perMinimum, _ := coder(dmin, d)
		factor := field(0)
		VMULPS(perScale, factor, factor)
		VMAXPS(least, factor, factor)
		VMINPS(most, factor, factor)
		VROUNDPS(U8(0), factor, factor)
		cost := all(infinity)
		for _, step := range []Mem{minusOne, none, one} {
			scale, minimum, rest := YMM(), YMM(), YMM()
			VADDPS(all(step), factor, scale)
			VMAXPS(least, scale, scale)
			VMINPS(most, scale, scale)
			VMULPS(d, scale, scale)
			VSUBPS(field(0), scale, scale)
			VMULPS(field(2), scale, minimum)
			VADDPS(field(1), minimum, minimum)
			VMULPS(perMinimum, minimum, rest)
			VMAXPS(zeroed(8), rest, rest)
			VMINPS(most, rest, rest)
			VROUNDPS(U8(0), rest, rest)
			VMULPS(dmin, rest, rest)
			VSUBPS(minimum, rest, rest)
			VMULPS(scale, scale, scale)
			VMULPS(field(3), scale, scale)
			VMULPS(rest, rest, rest)
			VMULPS(field(4), rest, rest)
			VADDPS(rest, scale, scale)
			VMINPS(scale, cost, cost)
		}
		VADDPS(lane(costs, 0, k), cost, cost)
		VMOVUPS(cost, lane(costs, 0, k))
	}
	VZEROUPPER()
	RET()
}
