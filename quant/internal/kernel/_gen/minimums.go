package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// minimumSearch is searchMinimums, in three stages: what is tried, its sums, and what follows from
// them. Stages by themselves leave a processor more to do at a time.
func minimumSearch(i isa, groups int) {
	function(fmt.Sprintf("minimumSearch%d%s", groups, i.name), "func(groups, pattern *float32, count int, grid *float32)",
		"The scale and minimum of each group for the codes that the best of some trials about what was found gives.")
	pattern, grid := pointer("pattern"), pointer("grid")
	superGroups(i, groups, func(s superGroup) {
		s.makeMinimums(pattern)
		s.addMinimumSums(newNearest(i, "Even", grid))
		inverse := s.all(one)
		VDIVPS(s.get(s.at(laneCount)), inverse, inverse)
		best := s.newLeast(5)
		s.forTried("promises", 1, func(tried GPVirtual) { s.keepMinimum(best, tried, inverse) })
		s.putMinimum(best, inverse)
	})
	VZEROUPPER()
	RET()
}

// Of a trial: what finds levels, in whose places the sums come.
const (
	triedInverse, triedLevel     = laneTriedScale, laneTriedScale
	triedOffset, triedLevelLevel = laneTriedMinimum, laneTriedMinimum
	triedLevelWeight             = laneTriedError
)

// makeMinimums makes what finds the levels of each trial.
func (s superGroup) makeMinimums(pattern GPVirtual) {
	trials, about, minimums, zero := s.trialsOf(pattern), s.get(s.at(laneScale)), s.get(s.at(laneMinimum)), s.zeroed()
	s.forTried("tries", 1, func(tried GPVirtual) {
		scale, minimum := trials.load(0), trials.load(1)
		VMULPS(about, minimum, minimum)
		VADDPS(minimums, minimum, minimum)
		VMAXPS(zero, minimum, minimum)
		VMULPS(about, scale, scale)
		inverse, offset := s.coder(scale, minimum)
		VMOVUPS(inverse, Mem{Base: tried, Disp: triedInverse})
		VMOVUPS(offset, Mem{Base: tried, Disp: triedOffset})
		trials.advance()
	})
}

// addMinimumSums makes the sums of all trials.
func (s superGroup) addMinimumSums(n *nearest) {
	s.forTried("sums", 2, func(tried GPVirtual) {
		var pair groupTrials
		for k := range 2 {
			pair = append(pair, &groupTrial{
				inverse: s.isa.get(Mem{Base: tried, Disp: triedInverse + k*laneBytes}),
				offset:  s.isa.get(Mem{Base: tried, Disp: triedOffset + k*laneBytes}),
				level:   s.all(none), levelLevel: s.all(none), levelWeight: s.all(none),
			})
		}
		n.keep()
		s.forRows("minimums", func(w, h VecVirtual) {
			pair.together(s.isa, func(trials groupTrials) { trials.addSums(n, w, h) })
		})
		for k, t := range pair {
			VMOVUPS(t.level, Mem{Base: tried, Disp: triedLevel + k*laneBytes})
			VMOVUPS(t.levelLevel, Mem{Base: tried, Disp: triedLevelLevel + k*laneBytes})
			VMOVUPS(t.levelWeight, Mem{Base: tried, Disp: triedLevelWeight + k*laneBytes})
		}
	})
}

// keepMinimum keeps the scale and minimum that follow from a trial, its level and the cost of
// other scales, if they promise the least error.
func (s superGroup) keepMinimum(best least, tried GPVirtual, inverse VecVirtual) {
	level, levelLevel := s.isa.get(Mem{Base: tried, Disp: triedLevel}), s.isa.get(Mem{Base: tried, Disp: triedLevelLevel})
	levelWeight, weight := Mem{Base: tried, Disp: triedLevelWeight}, s.get(s.at(laneWeight))
	v, cost, scale, minimum := vector(s.lanes), vector(s.lanes), s.isa.get(levelWeight), vector(s.lanes)
	VMULPS(level, level, v)
	VMULPS(inverse, v, v)
	VSUBPS(v, levelLevel, cost)
	VMULPS(weight, level, v)
	VMULPS(inverse, v, v)
	VSUBPS(v, scale, scale)
	VMULPS(level, scale, v)
	VMULPS(weight, cost, minimum)
	positive := s.compare(greaterQuiet, minimum, v)
	s.choose(positive, scale, s.isa.get(levelWeight), scale)
	s.choose(positive, cost, levelLevel, levelLevel)
	VDIVPS(levelLevel, scale, scale)
	VMULPS(level, scale, minimum)
	VSUBPS(weight, minimum, minimum)
	VMULPS(inverse, minimum, minimum)
	VMAXPS(s.all(none), minimum, minimum)
	minimum = s.where(positive, minimum)
	promise := s.get(s.at(laneSquare))
	VMULPS(levelWeight, scale, v)
	VSUBPS(v, promise, promise)
	VMULPS(weight, minimum, v)
	VADDPS(v, promise, promise)
	isScale := s.compare(greaterQuiet, s.all(none), scale)
	s.both(s.compare(greaterQuiet, s.all(none), cost), isScale)
	s.choose(isScale, promise, s.all(infinity), promise)
	best.keep(promise, scale, minimum, level, cost)
}

// putMinimum makes what was found known, where something was.
func (s superGroup) putMinimum(best least, inverse VecVirtual) {
	VMULPS(inverse, best.kept[3], best.kept[3])
	best = s.joined(best)
	found := best.compare(lessQuiet, best.all(infinity), best.kept[0])
	arrays := []int{laneScale, laneMinimum, laneSlope, laneScaleCost, laneMinimumCost}
	for k, v := range append(best.kept[1:], best.get(s.at(laneCount))) {
		before := best.get(s.at(arrays[k]))
		best.choose(found, v, before, before)
		VMOVUPS(before, s.at(arrays[k]))
	}
}

// unitCosts is addUnitCosts. A lane has a trial.
func unitCosts(i isa) {
	function("unitCosts"+i.name, "func(costs, trials, groups *float32, count int, least, most float32)", "Adds what 16 units cost so many groups.")
	costs, trials, groups := pointer("costs"), pointer("trials"), pointer("groups")
	least, most := i.all(argument("least")), i.all(argument("most"))
	for k := range i.parts() {
		d, dmin, total := i.get(i.lane(trials, 0, k)), i.get(i.lane(trials, 1, k)), i.get(i.lane(costs, 0, k))
		perScale, _ := i.coder(d, dmin)
		perMinimum, _ := i.coder(dmin, d)
		group, left := GP64(), GP64()
		MOVQ(groups, group)
		MOVQ(argument("count"), left)
		label := fmt.Sprintf("group%d", k)
		Label(label)
		VADDPS(i.unitCost(group, d, dmin, perScale, perMinimum, least, most), total, total)
		ADDQ(I32(4), group)
		DECQ(left)
		JNZ(LabelRef(label))
		VMOVUPS(total, i.lane(costs, 0, k))
	}
	VZEROUPPER()
	RET()
}

// unitCost is what units cost a group.
func (i isa) unitCost(group GPVirtual, d, dmin, perScale, perMinimum, least, most VecVirtual) VecVirtual {
	of := func(array int) VecVirtual { return i.all(Mem{Base: group, Disp: array}) }
	scale, minimum, rest := of(laneScale), vector(i.lanes), vector(i.lanes)
	VMULPS(perScale, scale, scale)
	VMAXPS(least, scale, scale)
	VMINPS(most, scale, scale)
	i.round(scale)
	VMULPS(d, scale, scale)
	VSUBPS(of(laneScale), scale, scale)
	VMULPS(of(laneSlope), scale, minimum)
	VADDPS(of(laneMinimum), minimum, minimum)
	VMULPS(perMinimum, minimum, rest)
	VMAXPS(i.all(none), rest, rest)
	VMINPS(most, rest, rest)
	i.round(rest)
	VMULPS(dmin, rest, rest)
	VSUBPS(minimum, rest, rest)
	VMULPS(scale, scale, scale)
	VMULPS(of(laneScaleCost), scale, scale)
	VMULPS(rest, rest, rest)
	VMULPS(of(laneMinimumCost), rest, rest)
	VADDPS(rest, scale, scale)
	return scale
}
