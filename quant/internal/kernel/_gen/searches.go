package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// In the functions of this file every lane is a trial of the same group.

// minimumSearch is searchMinimumTrials.
func minimumSearch(i isa, suffix string, weighted bool) {
	function("minimumSearch"+suffix+i.name, "func(found, pattern, grid, weights, importance *float32, n int, count, weight, square, inverse float32)",
		"The best scale and minimum for the codes that one of 16 trials about found gives.")
	found, pattern, grid := pointer("found"), pointer("pattern"), pointer("grid")
	results := AllocLocal(4 * laneBytes) // scales, minimums, levels, costs
	var trials []*trial
	for k := range i.parts() {
		scale := i.all(Mem{Base: found})
		s, m := vector(i.lanes), vector(i.lanes)
		VMULPS(i.lane(pattern, 1, k), scale, m)
		VADDPS(i.all(Mem{Base: found, Disp: 4}), m, m)
		VMAXPS(i.zeroed(), m, m)
		VMULPS(i.lane(pattern, 0, k), scale, s)
		t := &trial{scale: s, minimum: m, level: i.zeroed(), levelLevel: i.zeroed(), levelWeight: i.zeroed()}
		t.inverse, t.offset = i.coder(s, m)
		trials = append(trials, t)
	}
	n := newNearest(i, "Even", grid)
	n.keep()
	i.forWeights("weight", weighted, func(w, h VecVirtual) {
		for _, t := range trials {
			t.add(n, w, h)
		}
	})
	var promises []VecVirtual
	for k, t := range trials {
		weight, square, inverse := i.all(argument("weight")), i.all(argument("square")), i.all(argument("inverse"))
		v, cost, scale, minimum := vector(i.lanes), vector(i.lanes), vector(i.lanes), vector(i.lanes)
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
		positive, without := i.compare(greaterQuiet, i.zeroed(), minimum), vector(i.lanes)
		VDIVPS(t.levelLevel, t.levelWeight, without)
		i.choose(positive, scale, without, scale)
		minimum = i.where(positive, minimum)
		promise := vector(i.lanes)
		VMULPS(t.levelWeight, scale, promise)
		VSUBPS(promise, square, promise)
		VMULPS(weight, minimum, v)
		VADDPS(v, promise, promise)
		isScale := i.compare(greaterQuiet, i.zeroed(), scale)
		i.both(i.compare(greaterQuiet, i.zeroed(), cost), isScale)
		i.choose(isScale, promise, i.all(infinity), promise)
		promises = append(promises, promise)
		for array, v := range []VecVirtual{scale, minimum, t.level, cost} {
			VMOVUPS(v, results.Offset(array*laneBytes+4*i.lanes*k))
		}
	}
	least, best := i.least(promises)
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

// scaleSearch is searchScaleTrials.
func scaleSearch(i isa, kind, suffix string, weighted bool) {
	function("scaleSearch"+kind+suffix+i.name, "func(pattern, grid, weights, importance *float32, n int, scale float32) (best float32)",
		"The best scale for the codes that one of 16 trials gives, parts of scale, or scale if there is none.")
	pattern, grid := pointer("pattern"), pointer("grid")
	scales := AllocLocal(laneBytes)
	n := newNearest(i, kind, grid)
	var losses []VecVirtual
	start := func(k int) *trial {
		s := i.all(argument("scale"))
		VMULPS(i.lane(pattern, 0, k), s, s)
		t := &trial{scale: s, levelLevel: i.zeroed(), levelWeight: i.zeroed()}
		t.inverse, _ = i.coder(s, s)
		return t
	}
	try := func(label string, trials ...*trial) {
		i.forWeights(label, weighted, func(w, h VecVirtual) {
			for _, t := range trials {
				t.add(n, w, h)
			}
		})
		for _, t := range trials {
			best, gain, loss := vector(i.lanes), vector(i.lanes), i.zeroed()
			VDIVPS(t.levelLevel, t.levelWeight, best)
			VMULPS(t.levelWeight, best, gain)
			VSUBPS(gain, loss, loss)
			loss = i.where(i.compare(greaterQuiet, i.zeroed(), gain), loss) // and no NaN
			VMOVUPS(best, scales.Offset(4*i.lanes*len(losses)))
			losses = append(losses, loss)
		}
	}
	n.keep()
	switch {
	case i.lanes == 16:
		try("weight", start(0))
	case kind == "Table": // which needs more registers
		try("lower", start(0))
		try("upper", start(1))
	default:
		try("weight", start(0), start(1))
	}
	least, place := i.least(losses)
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
func trialErrors(i isa, kind, suffix string, weighted bool) {
	function("trialErrors"+kind+suffix+i.name, "func(errors, trials *float32, grid *float32, weights, importance *float32, n int)",
		"Adds to the squared errors of 16 trials over n weights, of which there is one at least.")
	errors, trials, grid := pointer("errors"), pointer("trials"), pointer("grid")
	n := newNearest(i, kind, grid)
	var vectors []*errorTrial
	for k := range n.tried() {
		e := &errorTrial{scale: n.getTried(trials, 0, k), minimum: n.getTried(trials, 1, k), total: n.getTried(errors, 0, k)}
		e.inverse, e.offset = i.coder(e.scale, e.minimum)
		if kind != "Even" {
			e.minimum, e.offset = nil, nil
		}
		vectors = append(vectors, e)
	}
	addErrors(n, weighted, vectors)
	for k, e := range vectors {
		VMOVUPS(n.ofTried(e.total), i.lane(errors, 0, k))
	}
	VZEROUPPER()
	RET()
}

// tried is how many vectors of trials are tried.
func (n *nearest) tried() int {
	if n.kind == "Table" {
		return 1
	}
	return n.parts()
}

// ofTried are the trials of a vector: 8 of a table, which needs more registers of 8 lanes.
func (n *nearest) ofTried(v VecVirtual) Op {
	if n.kind == "Table" {
		return v.AsY()
	}
	return v
}

// getTried loads such trials; what the lanes have beyond them is 0.
func (n *nearest) getTried(base GPVirtual, array, part int) VecVirtual {
	v := vector(n.lanes)
	VMOVUPS(n.lane(base, array, part), n.ofTried(v))
	return v
}

// levelSearch is searchLevels.
func levelSearch(i isa, suffix string, weighted bool) {
	function("levelSearch"+suffix+i.name, "func(levels, grid, weights, importance *float32, n int, normal float32) (lane int)",
		"The lane of the level that is the scale of least error, or 8, in the middle.")
	levels, grid := pointer("levels"), pointer("grid")
	n := newNearest(i, "Float", grid)
	plain, normal := i.all(Mem{Base: levels, Disp: laneBytes / 2}), i.all(argument("normal"))
	var vectors []*errorTrial
	var totals []VecVirtual
	for k := range i.parts() {
		scale := i.get(i.lane(levels, 0, k))
		if k == 0 {
			i.replaceFirst(plain, scale)
		}
		VMULPS(normal, scale, scale)
		e := &errorTrial{scale: scale, total: i.zeroed()}
		e.inverse, _ = i.coder(scale, scale)
		vectors, totals = append(vectors, e), append(totals, e.total)
	}
	addErrors(n, weighted, vectors)
	own, gain := XMM(), XMM()
	VMOVAPS(totals[0].AsX(), own)
	VMULSS(leastGain, own, gain)
	VSUBSS(gain, own, own)
	i.replaceFirst(i.all(infinity), totals[0])
	least, place := i.least(totals)
	middle := GP64()
	MOVQ(U32(8), middle)
	VUCOMISS(least.AsX(), own)
	CMOVQLS(middle, place) // no jump, which nothing could foresee
	Store(place, Return("lane"))
	VZEROUPPER()
	RET()
}

// leastTrial is that of the scalar kernel.
func leastTrial(i isa) {
	function("leastLane"+i.name, "func(errors *float32) (lane int)", "The lane of the least error of all but the first, the first of several.")
	errors := pointer("errors")
	var all []VecVirtual
	for k := range i.parts() {
		all = append(all, i.get(i.lane(errors, 0, k)))
	}
	i.replaceFirst(i.all(infinity), all[0])
	_, place := i.least(all)
	VZEROUPPER()
	Store(place, Return("lane"))
	RET()
}

// factorSearch is searchFactors.
func factorSearch(i isa, kind, suffix string, weighted bool) {
	function("factorSearch"+kind+suffix+i.name, "func(found, pattern, units, plain, grid, weights, importance *float32, n int)",
		"The least error, and the scale and minimum of it, of multiples of units; and the error of the plain ones.")
	found, pattern, unit, plain := pointer("found"), pointer("pattern"), pointer("units"), pointer("plain")
	grid := pointer("grid")
	n := newNearest(i, kind, grid)
	field := func(base GPVirtual, k int) VecVirtual { return i.all(Mem{Base: base, Disp: 4 * k}) }
	least, most := field(unit, 4), field(unit, 5)
	clip := func(v, least VecVirtual) {
		VMAXPS(least, v, v)
		VMINPS(most, v, v)
	}
	multiple := func(v VecVirtual, per int, least VecVirtual) {
		VMULPS(field(unit, per), v, v)
		clip(v, least)
		i.round(v)
	}
	factor := field(found, 0)
	multiple(factor, 2, least)
	kept := AllocLocal(2 * laneBytes) // scales, minimums
	var vectors []*errorTrial
	for k := range n.tried() {
		scale, minimum := vector(i.lanes), vector(i.lanes)
		VADDPS(i.lane(pattern, 0, k), factor, scale)
		clip(scale, least)
		VMULPS(field(unit, 0), scale, scale)
		if kind == "Even" {
			VSUBPS(field(found, 0), scale, minimum)
			VMULPS(field(found, 2), minimum, minimum)
			VADDPS(field(found, 1), minimum, minimum)
			zero := i.zeroed()
			multiple(minimum, 3, zero)
			VADDPS(i.lane(pattern, 1, k), minimum, minimum)
			clip(minimum, zero)
			VMULPS(field(unit, 1), minimum, minimum)
		} else {
			i.xor(minimum, minimum, minimum)
		}
		if k == 0 {
			i.replaceFirst(field(plain, 0), scale)
			i.replaceFirst(field(plain, 1), minimum)
		}
		VMOVUPS(scale, kept.Offset(4*i.lanes*k))
		VMOVUPS(minimum, kept.Offset(laneBytes+4*i.lanes*k))
		e := &errorTrial{scale: scale, minimum: minimum, total: i.zeroed()}
		e.inverse, e.offset = i.coder(scale, minimum)
		if kind != "Even" {
			e.minimum, e.offset = nil, nil
		}
		vectors = append(vectors, e)
	}
	addErrors(n, weighted, vectors)
	VMOVSS(vectors[0].total.AsX(), Mem{Base: found, Disp: 4 * 6})
	i.replaceFirst(i.all(infinity), vectors[0].total)
	totals, of := []VecVirtual{vectors[0].total, all(infinity)}, i
	switch {
	case kind == "Table":
		totals[0], of = vectors[0].total.AsY().(VecVirtual), isas[0]
	case i.lanes == 16:
		totals = totals[:1]
	default:
		totals[1] = vectors[1].total
	}
	error, place := of.least(totals)
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

// unitCosts is addUnitCosts.
func unitCosts(i isa) {
	function("unitCosts"+i.name, "func(costs, trials, group *float32, least, most float32)", "Adds what 16 units cost a group.")
	costs, trials, group := pointer("costs"), pointer("trials"), pointer("group")
	field := func(k int) VecVirtual { return i.all(Mem{Base: group, Disp: 4 * k}) }
	least, most := i.all(argument("least")), i.all(argument("most"))
	for k := range i.parts() {
		d, dmin := i.get(i.lane(trials, 0, k)), i.get(i.lane(trials, 1, k))
		perScale, _ := i.coder(d, dmin)
		perMinimum, _ := i.coder(dmin, d)
		factor := field(0)
		VMULPS(perScale, factor, factor)
		VMAXPS(least, factor, factor)
		VMINPS(most, factor, factor)
		i.round(factor)
		cost := i.all(infinity)
		for _, step := range []Mem{minusOne, none, one} {
			scale, minimum, rest := vector(i.lanes), vector(i.lanes), vector(i.lanes)
			VADDPS(i.all(step), factor, scale)
			VMAXPS(least, scale, scale)
			VMINPS(most, scale, scale)
			VMULPS(d, scale, scale)
			VSUBPS(field(0), scale, scale)
			VMULPS(field(2), scale, minimum)
			VADDPS(field(1), minimum, minimum)
			VMULPS(perMinimum, minimum, rest)
			VMAXPS(i.zeroed(), rest, rest)
			VMINPS(most, rest, rest)
			i.round(rest)
			VMULPS(dmin, rest, rest)
			VSUBPS(minimum, rest, rest)
			VMULPS(scale, scale, scale)
			VMULPS(field(3), scale, scale)
			VMULPS(rest, rest, rest)
			VMULPS(field(4), rest, rest)
			VADDPS(rest, scale, scale)
			VMINPS(scale, cost, cost)
		}
		VADDPS(i.lane(costs, 0, k), cost, cost)
		VMOVUPS(cost, i.lane(costs, 0, k))
	}
	VZEROUPPER()
	RET()
}
