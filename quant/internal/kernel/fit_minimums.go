package kernel

import "math"

// units are the normalized super-scale and super-minimum of a super-group.
type units struct{ scale, minimum float32 }

// fitMinimums fits super-groups whose scales and minimums are multiples of a super-scale
// and a super-minimum: a scale and a minimum for each group; the super-scale and
// super-minimum whose multiples are nearest to those, judged by what their distances cost;
// the best of the multiples about each.
func (e *encoder) fitMinimums() bool {
	found := &e.found
	found.begin()
	var most units
	for i := range e.groups {
		plain := e.plainMinimum(i)
		found.scale[i], found.minimum[i] = plain.scale, plain.minimum
		most.scale, most.minimum = max(most.scale, plain.scale), max(most.minimum, plain.minimum)
	}
	d, ok := e.roundUnits(units{most.scale / e.mostFactor, most.minimum / e.mostFactor}, 0)
	if !ok {
		return false
	}
	for i := range e.groups {
		e.scale[i] = d.scale * factorOf(found.scale[i], d.scale, e.leastFactor, e.mostFactor)
		e.minimum[i] = d.minimum * factorOf(found.minimum[i], d.minimum, 0, e.mostFactor)
	}
	if e.block.Method == RoundToNearest {
		return true
	}
	plain, all := units{e.superScale, e.superMinimum}, e.superGroup()
	e.steps.takeGroups(found, &all)
	e.steps.searchMinimums(found, &all, &e.grid.cuts)
	e.steps.searchMinimums(found, &all, &e.grid.spread)
	d = e.searchUnits(d)
	if !e.searchFactors(&all, d, &aboutMinimums) {
		e.superScale, e.superMinimum = plain.scale, plain.minimum
	}
	return true
}

// plainMinimum is round-to-nearest over the range of a group, which minimums extend to 0.
func (e *encoder) plainMinimum(i int) units {
	lo, hi := min(e.lo[i], 0), e.hi[i]
	if lo == hi { // all the same: 0 is the other end
		hi = 0
	}
	return units{scale: (hi - lo) / e.grid.high, minimum: -lo}
}

// roundUnits makes the super-scale and super-minimum, and gives them normalized. Those that
// vanish become least.
func (e *encoder) roundUnits(d units, least float32) (units, bool) {
	e.superScale, e.superMinimum = e.toFloat16(d.scale, least), e.toFloat16(d.minimum, least)
	if e.superScale == 0 && e.superMinimum != 0 {
		e.superScale = smallestFloat16 // zero-points are minimum/scale
	}
	if !isFinite(e.superScale) || !isFinite(e.superMinimum) {
		e.superScale = max(d.scale, d.minimum) * e.inverse[0]
		return units{}, false
	}
	return units{e.superScale * e.normal[0], e.superMinimum * e.normal[0]}, true
}

const (
	minimumCut    = 0.2   // of the range, at either end
	scaleSpread   = 0.155 // between scales that are tried, as a part, for a grid of one step
	minimumSpread = 0.25  // between minimums that are tried, in scales
)

// cutPattern tries the whole range and ranges cut at either end, by the largest code.
func cutPattern(maxCode float32) (p pattern) {
	for _, lower := range [...]float32{0, minimumCut} {
		for _, upper := range [...]float32{0, minimumCut} {
			p.try(1-lower-upper, -lower*maxCode)
		}
	}
	return p
}

// spreadPattern tries scales and minimums on all sides. Of more codes, scales lie closer together.
func spreadPattern(maxCode float32) (p pattern) {
	step := scaleSpread / float32(math.Sqrt(float64(maxCode)))
	for scale := range 4 {
		for minimum := range 4 {
			p.try(1+float32(step*(float32(scale)-1.5)), minimumSpread*(float32(minimum)-1.5))
		}
	}
	return p
}

// searchMinimums replaces what was found for each group by the scale and minimum of least error
// for the codes of the trial about it that promises the least.
func searchMinimums(l *groupLanes, s *superGroup, p *pattern) {
	for i := range s.groups {
		weights, importance := s.group(i)
		l.searchMinimum(i, p, s.grid, weights, importance)
	}
}

func (l *groupLanes) searchMinimum(i int, p *pattern, g *grid, weights, importance []float32) {
	about, least := units{l.scale[i], l.minimum[i]}, infinity
	weight, square, inverse := l.weight[i], l.square[i], 1/l.count[i]
	for lane := range p.count {
		tried := about.scale * p.scale[lane]
		s := sumTrial(g, tried, max(about.minimum+float32(about.scale*p.minimum[lane]), 0), weights, importance)
		// weight = scale*level - minimum
		scaleCost := s.levelLevel - float32(float32(s.level*s.level)*inverse)
		scale := (s.levelWeight - float32(float32(s.level*weight)*inverse)) / scaleCost
		minimum := float32((float32(scale*s.level) - weight) * inverse)
		if !(minimum > 0) {
			scale, minimum = s.levelWeight/s.levelLevel, 0
		}
		promise := square - float32(scale*s.levelWeight) + float32(minimum*weight)
		if scale > 0 && scaleCost > 0 && promise < least {
			least = promise
			l.scale[i], l.minimum[i], l.slope[i] = scale, minimum, float32(s.level*inverse)
			l.scaleCost[i], l.minimumCost[i] = scaleCost, l.count[i]
		}
	}
}

// widestUnit is the widest super-scale that is tried, as a part of what is needed.
const widestUnit = 1.05

// searchUnits tries super-scales and super-minimums from what the largest scale and
// minimum need to somewhat more, as multiples of others may be nearer to all.
func (e *encoder) searchUnits(plain units) units {
	var most units
	for i := range e.groups {
		most.scale, most.minimum = max(most.scale, e.found.scale[i]), max(most.minimum, e.found.minimum[i])
	}
	tried := &e.trials[0]
	var stored trials
	needed := units{most.scale / e.mostFactor, most.minimum / e.mostFactor}
	if !e.roundFiniteUnits(needed, tried, &stored) {
		e.roundAllUnits(needed, plain, tried, &stored)
	}
	costs := &e.errors[0]
	*costs = lanes{}
	e.steps.addUnitCosts(costs, tried, &e.found, e.groups, e.leastFactor, e.mostFactor)
	best := e.steps.leastTrial(costs)
	if costs[0] <= costs[best] {
		best = 0
	}
	e.superScale, e.superMinimum = stored.scale[best], stored.minimum[best]
	return units{tried.scale[best], tried.minimum[best]}
}

// unitPattern is the parts of what is needed that are tried.
var unitPattern = func() (p trials) {
	for lane := range trialLanes {
		const step = (widestUnit - 1) / trialLanes
		p.set(lane, 1+float32(step*float32(lane)), 1+float32(step*float32(lane*5%trialLanes)))
	}
	return p
}()

// roundFiniteUnits is roundAllUnits without calls, where float16 has all of them.
func (e *encoder) roundFiniteUnits(needed units, tried, stored *trials) bool {
	inverse, normal := e.inverse[0], e.normal[0]
	if !(needed.scale > 0) || !(max(needed.scale, needed.minimum)*widestUnit*inverse <= largestFloat16) {
		return false
	}
	for lane, part := range unitPattern.scale {
		stored.scale[lane] = roundUnit(float32(needed.scale*part) * inverse)
		tried.scale[lane] = stored.scale[lane] * normal
	}
	for lane, part := range unitPattern.minimum {
		stored.minimum[lane] = roundUnit(float32(needed.minimum*part) * inverse)
		tried.minimum[lane] = stored.minimum[lane] * normal
	}
	return true
}

// roundUnit is toFloat16 for what is tried, without calls and, where all are subnormal or none is,
// without jumps that a processor does not foresee.
func roundUnit(wanted float32) float32 {
	if wanted >= smallestNormalFloat16 {
		return roundNormalFloat16(wanted)
	}
	steps := float32(wanted * (1 / smallestFloat16))
	whole := int32(steps)
	less := math.Float32bits(float32(whole) - steps) // has a sign if it is less
	return float32(whole+int32(less>>31)) * smallestFloat16
}

// roundAllUnits gives the super-scales and super-minimums that are tried, and as they are stored;
// for those that are beyond what can be, the plain ones.
func (e *encoder) roundAllUnits(needed, plain units, tried, stored *trials) {
	before := units{e.superScale, e.superMinimum}
	for lane := range trialLanes {
		d, ok := e.roundUnits(units{needed.scale * unitPattern.scale[lane], needed.minimum * unitPattern.minimum[lane]}, smallestFloat16)
		if !ok {
			e.superScale, e.superMinimum, d = before.scale, before.minimum, plain
		}
		tried.set(lane, d.scale, d.minimum)
		stored.set(lane, e.superScale, e.superMinimum)
	}
}

// addUnitCosts adds what the nearest multiples of each trial cost the groups, with the minimum
// that is best for the scale.
func addUnitCosts(costs *lanes, d *trials, l *groupLanes, groups int, least, most float32) {
	for i := range groups {
		for lane := range trialLanes {
			costs[lane] += l.unitCost(i, units{d.scale[lane], d.minimum[lane]}, least, most)
		}
	}
}

func (l *groupLanes) unitCost(i int, d units, least, most float32) float32 {
	perScale, _ := coder(d.scale, 0)
	perMinimum, _ := coder(d.minimum, 0)
	scale := float32(d.scale*roundEven(min(max(float32(l.scale[i]*perScale), least), most))) - l.scale[i]
	minimum := l.minimum[i] + float32(scale*l.slope[i])
	multiple := roundEven(min(max(float32(minimum*perMinimum), 0), most))
	rest := float32(d.minimum*multiple) - minimum
	return float32(float32(scale*scale)*l.scaleCost[i]) + float32(float32(rest*rest)*l.minimumCost[i])
}

// aboutMinimums are scale factors about the nearest, of which the three nearest have three
// minimum factors about the best for each. The first trial is left out.
var aboutMinimums = func() (p pattern) {
	p.try(0, 0)
	for scale := float32(-2); scale <= 2; scale++ {
		p.try(scale, 0)
		if abs(scale) < 2 {
			p.try(scale, -1)
			p.try(scale, 1)
		}
	}
	return p
}()

func signed(magnitude, sign float32) float32 {
	return float32(math.Copysign(float64(magnitude), float64(sign)))
}
