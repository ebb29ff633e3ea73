package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// In the functions of this file every lane has a group of a super-group. Where there are more
// lanes than groups, those of the upper half have the same groups, for other trials.

const (
	superSize  = 256
	trialLanes = 16
)

// Where the arrays of groupLanes begin, in its order.
const (
	laneWeights      = 0
	laneImportance   = laneWeights + 4*superSize
	laneCount        = laneImportance + 4*superSize
	laneWeight       = laneCount + laneBytes
	laneSquare       = laneWeight + laneBytes
	laneScale        = laneSquare + laneBytes
	laneMinimum      = laneScale + laneBytes
	laneSlope        = laneMinimum + laneBytes
	laneScaleCost    = laneSlope + laneBytes
	laneMinimumCost  = laneScaleCost + laneBytes
	laneError        = laneMinimumCost + laneBytes
	lanePlainError   = laneError + laneBytes
	laneTriedScale   = lanePlainError + laneBytes
	laneTriedMinimum = laneTriedScale + trialLanes*laneBytes
	laneTriedError   = laneTriedMinimum + trialLanes*laneBytes
)

// superGroup is some groups of one: as many as there are lanes, or all.
type superGroup struct {
	isa
	groups int // of the super-group
	base   GPVirtual
	part   int // the first group, by lanes
}

// superGroups emits code for all groups of a super-group.
func superGroups(i isa, groups int, each func(s superGroup)) {
	base := pointer("groups")
	for part := range max(1, groups/i.lanes) {
		each(superGroup{i, groups, base, part})
	}
}

// label is that of a loop of this part.
func (s superGroup) label(name string) string { return fmt.Sprintf("%s%d", name, s.part) }

// twice tells whether lanes have other trials of the same groups.
func (s superGroup) twice() bool { return s.lanes > s.groups }

// tries is how many vectors have all trials.
func (s superGroup) tries() GPVirtual {
	tries := GP64()
	MOVQ(argument("count"), tries)
	if s.twice() {
		SHRQ(Imm(1), tries)
	}
	return tries
}

func (s superGroup) at(array int) Mem { return Mem{Base: s.base, Disp: array + 4*s.lanes*s.part} }

// get loads a number of each group.
func (s superGroup) get(address Mem) VecVirtual {
	if !s.twice() {
		return s.isa.get(address)
	}
	v := ZMM()
	VBROADCASTF32X8(address, v)
	return v
}

// trialsOf goes over the trials of a pattern.
type trialsOf struct {
	superGroup
	next, tries GPVirtual
	upper       Register // masks the upper half of lanes, which has the trials after all of the lower ones
}

func (s superGroup) trialsOf(pattern GPVirtual) trialsOf {
	t := trialsOf{superGroup: s, next: GP64()}
	MOVQ(pattern, t.next)
	if s.twice() {
		bits := GP32()
		t.tries, t.upper = s.tries(), K()
		MOVL(U32(0xff00), bits)
		KMOVW(bits, t.upper)
	}
	return t
}

// load has the numbers of an array for the trial at hand.
func (t trialsOf) load(array int) VecVirtual {
	v := t.all(Mem{Base: t.next, Disp: array * laneBytes})
	if t.twice() {
		VBROADCASTSS(Mem{Base: t.next, Index: t.tries, Scale: 4, Disp: array * laneBytes}, t.upper, v)
	}
	return v
}

// advance goes to the next trial.
func (t trialsOf) advance() { ADDQ(I32(4), t.next) }

// forRows emits a loop over the weights of groups, with their importance, two a turn.
func (s superGroup) forRows(name string, each func(w, h VecVirtual)) {
	rows, left := GP64(), GP64()
	LEAQ(s.at(laneWeights), rows)
	MOVQ(U32(superSize/s.groups/2), left)
	Label(s.label(name))
	for k := range 2 {
		row := Mem{Base: rows, Disp: 4 * s.groups * k}
		each(s.get(row), s.get(row.Offset(laneImportance)))
	}
	ADDQ(I32(int32(2*4*s.groups)), rows)
	DECQ(left)
	JNZ(LabelRef(s.label(name)))
}

// forPairs emits a loop over 16 trials, two a turn.
func (s superGroup) forPairs(name string, each func()) {
	left := GP64()
	MOVQ(U32(trialLanes/2), left)
	Label(s.label(name))
	each()
	DECQ(left)
	JNZ(LabelRef(s.label(name)))
}

// least keeps the least of some numbers, which begin as Inf, and what belongs to it.
type least struct {
	isa
	kept []VecVirtual // the least, then the others
}

// newLeast keeps so many numbers, the least one included.
func (s superGroup) newLeast(numbers int) least {
	l := least{s.isa, []VecVirtual{s.all(infinity)}}
	for range numbers - 1 {
		l.kept = append(l.kept, s.all(none))
	}
	return l
}

// keep keeps what is less than before.
func (l least) keep(values ...Op) {
	number := vector(l.lanes)
	VMOVUPS(values[0], number)
	less := l.compare(lessQuiet, l.kept[0], number)
	for k, v := range values {
		l.choose(less, v, l.kept[k], l.kept[k])
	}
}

// joined has the lesser of both trials of a group, in lanes that have each group once.
func (s superGroup) joined(l least) least {
	if !s.twice() {
		return l
	}
	lower := least{isa: isas[0]}
	var upper []Op
	for _, v := range l.kept {
		half := YMM()
		VEXTRACTF64X4(U8(1), v, half)
		upper = append(upper, half)
		lower.kept = append(lower.kept, v.AsY().(VecVirtual))
	}
	lower.keep(upper...)
	return lower
}

// layGroups lays the weights of groups side by side.
func layGroups(groups int) {
	function(fmt.Sprintf("layGroups%d", groups), "func(out, weights *float32)",
		"Of a super-group's weights, group by group, rows of one of each group.")
	out, weights := pointer("out"), pointer("weights")
	size := superSize / groups
	for first := 0; first < groups; first += 8 {
		for at := 0; at < size; at += 8 {
			var v [8]VecVirtual
			for k := range v {
				v[k] = isas[0].get(Mem{Base: weights, Disp: 4 * (size*(first+k) + at)})
			}
			for k, row := range transposed(v) {
				VMOVUPS(row, Mem{Base: out, Disp: 4 * (groups*(at+k) + first)})
			}
		}
	}
	VZEROUPPER()
	RET()
}

// takeMoments is that of the scalar kernel.
func takeMoments(groups int) {
	function(fmt.Sprintf("takeMoments%d", groups), "func(groups *float32)", "The sums of importance, of weighted weights, and of their squares.")
	superGroups(isas[0], groups, func(s superGroup) {
		count, weight, square := s.all(none), s.all(none), s.all(none)
		s.forRows("moments", func(w, h VecVirtual) {
			VADDPS(h, count, count)
			VMULPS(w, h, h)
			VADDPS(h, weight, weight)
			VMULPS(w, h, h)
			VADDPS(h, square, square)
		})
		VMOVUPS(count, s.at(laneCount))
		VMOVUPS(weight, s.at(laneWeight))
		VMOVUPS(square, s.at(laneSquare))
	})
	VZEROUPPER()
	RET()
}

// groupTrial is one of each group. What a trial without minimums has no use for is nil.
type groupTrial struct {
	scale, minimum, inverse, offset VecVirtual
	level, levelLevel, levelWeight  VecVirtual // sums
	total                           VecVirtual // of squared errors
}

// groupTrials take steps together: what waits for a step before it has others between.
type groupTrials []*groupTrial

// together takes as many at a time as leave registers to all.
func (trials groupTrials) together(i isa, add func(trials groupTrials)) {
	most := i.lanes / 8
	for first := 0; first < len(trials); first += most {
		add(trials[first : first+most])
	}
}

// levels gives the levels of a weight of each group.
func (trials groupTrials) levels(n *nearest, w VecVirtual) (levels []VecVirtual) {
	for _, t := range trials {
		y := vector(n.lanes)
		VMULPS(w, t.inverse, y)
		levels = append(levels, y)
	}
	for k, t := range trials {
		if t.offset != nil {
			VADDPS(t.offset, levels[k], levels[k])
		}
	}
	for _, y := range levels {
		VMAXPS(n.repeated(gridLow), y, y)
	}
	for _, y := range levels {
		VMINPS(n.repeated(gridHigh), y, y)
	}
	for _, y := range levels {
		n.round(y)
	}
	return levels
}

// addSums counts a weight of each group.
func (trials groupTrials) addSums(n *nearest, w, h VecVirtual) {
	levels, weighted := trials.levels(n, w), []VecVirtual{}
	for _, level := range levels {
		v := vector(n.lanes)
		VMULPS(level, h, v)
		weighted = append(weighted, v)
	}
	for k, t := range trials {
		if t.level != nil {
			VADDPS(weighted[k], t.level, t.level)
		}
	}
	for k, level := range levels {
		VMULPS(weighted[k], level, level)
	}
	for _, v := range weighted {
		VMULPS(w, v, v)
	}
	for k, t := range trials {
		VADDPS(levels[k], t.levelLevel, t.levelLevel)
	}
	for k, t := range trials {
		VADDPS(weighted[k], t.levelWeight, t.levelWeight)
	}
}

// addErrors counts a weight of each group.
func (trials groupTrials) addErrors(n *nearest, w, h VecVirtual) {
	rests := trials.levels(n, w)
	for k, t := range trials {
		VMULPS(t.scale, rests[k], rests[k])
	}
	for k, t := range trials {
		if t.minimum != nil {
			VSUBPS(t.minimum, rests[k], rests[k])
		}
	}
	for _, rest := range rests {
		VSUBPS(rest, w, rest)
	}
	for _, rest := range rests {
		product := vector(n.lanes)
		VMULPS(rest, h, product)
		VMULPS(rest, product, rest)
	}
	for k, t := range trials {
		VADDPS(rests[k], t.total, t.total)
	}
}

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
	VDIVPS(cost, scale, scale)
	VMULPS(level, scale, minimum)
	VSUBPS(weight, minimum, minimum)
	VMULPS(inverse, minimum, minimum)
	positive, without := s.compare(greaterQuiet, s.all(none), minimum), s.isa.get(levelWeight)
	VDIVPS(levelLevel, without, without)
	s.choose(positive, scale, without, scale)
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

// lower is an instruction set whose lanes have each group once.
func (s superGroup) lower() isa {
	if s.twice() {
		return isas[0]
	}
	return s.isa
}

// putFirst makes numbers those of the first trial.
func (s superGroup) putFirst(v VecVirtual, array int) { VMOVUPS(v, Mem{Base: s.base, Disp: array}) }

// forTried emits a loop over what is tried, some vectors of trials a turn.
func (s superGroup) forTried(name string, together int, each func(tried GPVirtual)) {
	tried, left := GP64(), GP64()
	MOVQ(s.base, tried)
	MOVQ(s.tries(), left)
	Label(s.label(name))
	each(tried)
	ADDQ(I32(int32(together*laneBytes)), tried)
	SUBQ(I32(int32(together)), left)
	JNZ(LabelRef(s.label(name)))
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
