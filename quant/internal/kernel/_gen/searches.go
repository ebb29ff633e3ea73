package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// In the functions of this file every lane is a trial of the same group.

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
		e := &errorTrial{scale: n.getTried(trials, 0, k), total: n.getTried(errors, 0, k)}
		e.inverse, _ = i.coder(e.scale, e.scale)
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

// factorSearch is searchFactors for one group of a table's levels.
func factorSearch(i isa, suffix string, weighted bool) {
	function("factorSearch"+suffix+i.name, "func(group, pattern, units, plain, grid, weights, importance *float32, n int)",
		"The least error, and the scale of it, of multiples of units; and the error of the plain one. group is groupLanes from the group's lane on.")
	group, pattern, unit, plain := pointer("group"), pointer("pattern"), pointer("units"), pointer("plain")
	grid := pointer("grid")
	n := newNearest(i, "Table", grid)
	field := func(k int) VecVirtual { return i.all(Mem{Base: unit, Disp: 4 * k}) }
	least, most := field(4), field(5)
	clip := func(v VecVirtual) {
		VMAXPS(least, v, v)
		VMINPS(most, v, v)
	}
	scale, tried := i.all(Mem{Base: group, Disp: laneScale}), vector(i.lanes)
	VMULPS(field(2), scale, scale)
	clip(scale)
	i.round(scale)
	VADDPS(i.lane(pattern, 0, 0), scale, tried)
	clip(tried)
	VMULPS(field(0), tried, tried)
	i.replaceFirst(i.all(Mem{Base: plain}), tried)
	kept := AllocLocal(laneBytes)
	VMOVUPS(tried, kept)
	e := &errorTrial{scale: tried, total: i.zeroed()}
	e.inverse, _ = i.coder(tried, tried)
	addErrors(n, weighted, []*errorTrial{e})
	VMOVSS(e.total.AsX(), Mem{Base: group, Disp: lanePlainError})
	i.replaceFirst(i.all(infinity), e.total)
	error, place := isas[0].least([]VecVirtual{e.total.AsY().(VecVirtual), all(infinity)})
	VMOVSS(error.AsX(), Mem{Base: group, Disp: laneError})
	values, best := GP64(), XMM()
	LEAQ(kept, values)
	VMOVSS(Mem{Base: values, Index: place, Scale: 4}, best)
	VMOVSS(best, Mem{Base: group, Disp: laneScale})
	VZEROUPPER()
	RET()
}
