package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// groupScales is searchScales.
func groupScales(i isa, groups int) {
	function(fmt.Sprintf("groupScales%d%s", groups, i.name), "func(groups, pattern, grid *float32)",
		"The scale of each group for the codes that the best of 16 trials gives, parts of what was found.")
	pattern, grid := pointer("pattern"), pointer("grid")
	superGroups(i, groups, func(s superGroup) {
		n := newNearest(i, "Even", grid)
		trials, scale, most := s.trialsOf(pattern), s.get(s.at(laneScale)), s.all(none)
		s.forPairs("trials", func() {
			var pair groupTrials
			for range 2 {
				tried := trials.load(0)
				trials.advance()
				VMULPS(s.get(s.at(laneScale)), tried, tried)
				t := &groupTrial{levelLevel: s.all(none), levelWeight: s.all(none)}
				t.inverse, _ = i.coder(tried, tried)
				pair = append(pair, t)
			}
			n.keep()
			s.forRows("scales", func(w, h VecVirtual) {
				pair.together(i, func(trials groupTrials) { trials.addSums(n, w, h) })
			})
			for _, t := range pair {
				fitted, gain := vector(s.lanes), vector(s.lanes)
				VDIVPS(t.levelLevel, t.levelWeight, fitted)
				VMULPS(t.levelWeight, fitted, gain)
				more := s.compare(greaterQuiet, most, gain)
				s.choose(more, gain, most, most)
				s.choose(more, fitted, scale, scale)
			}
		})
		VMOVUPS(scale, s.at(laneScale))
	})
	VZEROUPPER()
	RET()
}

// groupFactors is searchFactors, in three stages: what is tried, its errors, and the least of them.
func groupFactors(i isa, groups int, minimums bool) {
	name := "Scales"
	if minimums {
		name = "Minimums"
	}
	function(fmt.Sprintf("groupFactors%s%d%s", name, groups, i.name), "func(groups, pattern *float32, count int, units, plainScales, plainMinimums, grid *float32)",
		"The least error of each group, and the scale and minimum of it, of multiples of units; and the error of the plain ones.")
	pattern, units := pointer("pattern"), pointer("units")
	plainScales, plainMinimums, grid := pointer("plainScales"), pointer("plainMinimums"), pointer("grid")
	superGroups(i, groups, func(s superGroup) {
		s.makeFactors(pattern, units, minimums)
		s.putFirst(s.lower().get(Mem{Base: plainScales, Disp: 4 * s.lanes * s.part}), laneTriedScale)
		chosen := []int{laneError, laneScale}
		if minimums {
			s.putFirst(s.lower().get(Mem{Base: plainMinimums, Disp: 4 * s.lanes * s.part}), laneTriedMinimum)
			chosen = append(chosen, laneMinimum)
		}
		s.addFactorErrors(newNearest(i, "Even", grid), minimums)
		s.leastFactor(chosen)
	})
	VZEROUPPER()
	RET()
}

// makeFactors makes the scales and minimums that are tried.
func (s superGroup) makeFactors(pattern, units GPVirtual, minimums bool) {
	field := func(k int) VecVirtual { return s.all(Mem{Base: units, Disp: 4 * k}) }
	trials, zero, least, most := s.trialsOf(pattern), s.all(none), field(4), field(5)
	clip := func(v, least VecVirtual) {
		VMAXPS(least, v, v)
		VMINPS(most, v, v)
	}
	scale, minimum, slope := s.get(s.at(laneScale)), s.get(s.at(laneMinimum)), s.get(s.at(laneSlope))
	factor := vector(s.lanes)
	VMULPS(field(2), scale, factor)
	clip(factor, least)
	s.round(factor)
	s.forTried("factors", 1, func(at GPVirtual) {
		tried := trials.load(0)
		VADDPS(factor, tried, tried)
		clip(tried, least)
		VMULPS(field(0), tried, tried)
		VMOVUPS(tried, Mem{Base: at, Disp: laneTriedScale})
		if minimums {
			multiple := vector(s.lanes)
			VSUBPS(scale, tried, multiple)
			VMULPS(slope, multiple, multiple)
			VADDPS(minimum, multiple, multiple)
			VMULPS(field(3), multiple, multiple)
			clip(multiple, zero)
			s.round(multiple)
			VADDPS(trials.load(1), multiple, multiple)
			clip(multiple, zero)
			VMULPS(field(1), multiple, multiple)
			VMOVUPS(multiple, Mem{Base: at, Disp: laneTriedMinimum})
		}
		trials.advance()
	})
}

// addFactorErrors adds up the errors of what is tried.
func (s superGroup) addFactorErrors(n *nearest, minimums bool) {
	s.forTried("errors", 2, func(tried GPVirtual) {
		var pair groupTrials
		for k := range 2 {
			e := &groupTrial{scale: s.isa.get(Mem{Base: tried, Disp: laneTriedScale + k*laneBytes}), total: s.all(none)}
			e.minimum = e.scale
			if minimums {
				e.minimum = s.isa.get(Mem{Base: tried, Disp: laneTriedMinimum + k*laneBytes})
			}
			e.inverse, e.offset = s.coder(e.scale, e.minimum)
			if !minimums {
				e.minimum, e.offset = nil, nil
			}
			pair = append(pair, e)
		}
		n.keep()
		s.forRows("rows", func(w, h VecVirtual) {
			pair.together(s.isa, func(trials groupTrials) { trials.addErrors(n, w, h) })
		})
		for k, e := range pair {
			VMOVUPS(e.total, Mem{Base: tried, Disp: laneTriedError + k*laneBytes})
		}
	})
}

// leastFactor takes what is chosen: that of the least error of all trials but the first.
func (s superGroup) leastFactor(chosen []int) {
	VMOVUPS(s.lower().get(Mem{Base: s.base, Disp: laneTriedError}), s.at(lanePlainError))
	s.putFirst(s.lower().all(infinity), laneTriedError)
	best := s.newLeast(len(chosen))
	s.forTried("least", 2, func(tried GPVirtual) {
		for k := range 2 {
			var values []Op
			for _, array := range []int{laneTriedError, laneTriedScale, laneTriedMinimum}[:len(chosen)] {
				values = append(values, Mem{Base: tried, Disp: array + k*laneBytes})
			}
			best.keep(values...)
		}
	})
	for k, v := range s.joined(best).kept {
		VMOVUPS(v, s.at(chosen[k]))
	}
}
