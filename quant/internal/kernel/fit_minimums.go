package kernel

import "math"

// units are the normalized super-scale and super-minimum of a super-group.
type units struct{ scale, minimum float32 }

// fitMinimums fits super-groups whose scales and minimums are multiples of a super-scale
// and a super-minimum: a scale and a minimum for each group; the super-scale and
// super-minimum whose multiples are nearest to those, judged by what their distances cost;
// the best of the multiples about each.
func (e *encoder) fitMinimums() bool {
	searched := e.searched[:e.groups]
	var most units
	for i := range searched {
		searched[i] = e.plainMinimum(i)
		most.scale, most.minimum = max(most.scale, searched[i].scale), max(most.minimum, searched[i].minimum)
	}
	d, ok := e.roundUnits(units{most.scale / e.mostFactor, most.minimum / e.mostFactor}, 0)
	if !ok {
		return false
	}
	for i, g := range searched {
		e.scale[i] = d.scale * factorOf(g.scale, d.scale, e.leastFactor, e.mostFactor)
		e.minimum[i] = d.minimum * factorOf(g.minimum, d.minimum, 0, e.mostFactor)
	}
	if e.block.Method == RoundToNearest {
		return true
	}
	plain := units{e.superScale, e.superMinimum}
	e.searchMinimums(searched)
	d = e.searchUnits(searched, d)
	if !e.searchFactors(searched, d, &aboutMinimums) {
		e.superScale, e.superMinimum = plain.scale, plain.minimum
	}
	return true
}

// plainMinimum is round-to-nearest over the range of a group, which minimums extend to 0.
func (e *encoder) plainMinimum(i int) searchedMinimum {
	lo, hi := min(e.lo[i], 0), e.hi[i]
	if lo == hi { // all the same: 0 is the other end
		hi = 0
	}
	return searchedMinimum{scale: (hi - lo) / e.grid.high, minimum: -lo}
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

// searchedMinimum is the scale and the minimum of least error for a group without
// rounding, and what another scale costs: its distance squared times scaleCost where the
// minimum is the best for it, which moves by slope, and another minimum its distance squared
// times weight. At last it has the error, and that of round-to-nearest. Assembly relies on
// the order.
type searchedMinimum struct{ scale, minimum, slope, scaleCost, weight, error, plainError float32 }

// moments are the sums of a group's importance, of its weighted weights, and of their
// squares.
type moments struct{ count, weight, square float32 }

func momentsOf(weights, importance []float32) (m moments) {
	if importance == nil {
		m.count = float32(len(weights))
	}
	for i, w := range weights {
		weighted := w
		if importance != nil {
			h := importance[i]
			weighted = float32(h * w)
			m.count += h
		}
		m.weight += weighted
		m.square += float32(weighted * w)
	}
	return m
}

const (
	widestMinimumCut = 0.1  // of the range, at either end
	scaleSpread      = 0.04 // between scales that are tried, as a part
	minimumSpread    = 0.25 // between minimums that are tried, in scales
)

// cutPattern tries ranges cut at either end, by the largest code.
func cutPattern(maxCode float32) (p trials) {
	for lane := range trialLanes {
		lower, upper := float32(lane%4)*widestMinimumCut/3, float32(lane/4)*widestMinimumCut/3
		p.set(lane, 1-lower-upper, -lower*maxCode)
	}
	return p
}

// spreadPattern tries scales and minimums on all sides.
var spreadPattern = func() (p trials) {
	for lane := range trialLanes {
		p.set(lane, 1+float32(scaleSpread*(float32(lane%4)-1.5)), minimumSpread*(float32(lane/4)-1.5))
	}
	return p
}()

// searchMinimums improves on the scales and the minimums of all groups. What is known of a group
// is the beginning of its next search, so that others come between them.
func (e *encoder) searchMinimums(searched []searchedMinimum) {
	moments, all := e.moments[:len(searched)], e.superGroup()
	for i := range moments {
		moments[i] = momentsOf(all.group(i))
	}
	pattern := &e.grid.cuts
	for range e.refits {
		for i, m := range moments {
			if searched[i].scale != 0 {
				weights, importance := all.group(i)
				e.steps.searchMinimum(&searched[i], pattern, e.grid, weights, importance, m)
			}
		}
		pattern = &spreadPattern
	}
}

func searchMinimum(found *searchedMinimum, pattern *trials, g *grid, weights, importance []float32, m moments) {
	about, least, inverse := *found, infinity, 1/m.count
	for lane := range trialLanes {
		tried := about.scale * pattern.scale[lane]
		s := sumTrial(g, tried, max(about.minimum+float32(about.scale*pattern.minimum[lane]), 0), weights, importance)
		// weight = scale*level - minimum
		scaleCost := s.levelLevel - float32(float32(s.level*s.level)*inverse)
		scale := (s.levelWeight - float32(float32(s.level*m.weight)*inverse)) / scaleCost
		minimum := float32((float32(scale*s.level) - m.weight) * inverse)
		if !(minimum > 0) {
			scale, minimum = s.levelWeight/s.levelLevel, 0
		}
		promise := m.square - float32(scale*s.levelWeight) + float32(minimum*m.weight)
		if scale > 0 && scaleCost > 0 && promise < least {
			least = promise
			*found = searchedMinimum{scale: scale, minimum: minimum, slope: float32(s.level * inverse), scaleCost: scaleCost, weight: m.count}
		}
	}
}

// widestUnit is the widest super-scale that is tried, as a part of what is needed.
const widestUnit = 1.05

// searchUnits tries super-scales and super-minimums from what the largest scale and
// minimum need to somewhat more, as multiples of others may be nearer to all.
func (e *encoder) searchUnits(groups []searchedMinimum, plain units) units {
	var most units
	for _, g := range groups {
		most.scale, most.minimum = max(most.scale, g.scale), max(most.minimum, g.minimum)
	}
	before, tried := units{e.superScale, e.superMinimum}, &e.trials[0]
	var stored [trialLanes]units
	for lane := range trialLanes {
		const step = (widestUnit - 1) / trialLanes
		d, ok := e.roundUnits(units{
			most.scale / e.mostFactor * (1 + float32(step*float32(lane))),
			most.minimum / e.mostFactor * (1 + float32(step*float32(lane*5%trialLanes))),
		}, smallestFloat16)
		if !ok {
			e.superScale, e.superMinimum, d = before.scale, before.minimum, plain
		}
		tried.set(lane, d.scale, d.minimum)
		stored[lane] = units{e.superScale, e.superMinimum}
	}
	costs := &e.errors[0]
	*costs = lanes{}
	for i := range groups {
		e.steps.addUnitCosts(costs, tried, &groups[i], e.leastFactor, e.mostFactor)
	}
	best := e.steps.leastTrial(costs)
	if costs[0] <= costs[best] {
		best = 0
	}
	e.superScale, e.superMinimum = stored[best].scale, stored[best].minimum
	return units{tried.scale[best], tried.minimum[best]}
}

// addUnitCosts adds what the nearest multiples of each trial cost a group, those of scales
// being one of three, with the minimum that is best for it.
func addUnitCosts(costs *lanes, d *trials, g *searchedMinimum, least, most float32) {
	for lane := range trialLanes {
		perScale, _ := coder(d.scale[lane], 0)
		perMinimum, _ := coder(d.minimum[lane], 0)
		factor := roundEven(min(max(float32(g.scale*perScale), least), most))
		cost := infinity
		for _, step := range [...]float32{-1, 0, 1} {
			scale := float32(d.scale[lane]*min(max(factor+step, least), most)) - g.scale
			minimum := g.minimum + float32(scale*g.slope)
			multiple := roundEven(min(max(float32(minimum*perMinimum), 0), most))
			rest := float32(d.minimum[lane]*multiple) - minimum
			cost = min(cost, float32(float32(scale*scale)*g.scaleCost)+float32(float32(rest*rest)*g.weight))
		}
		costs[lane] += cost
	}
}

// aboutMinimums are five scale factors about the nearest, each with three minimum factors
// about the best for it. The first lane is left out.
var aboutMinimums = func() (p trials) {
	for lane := 1; lane < trialLanes; lane++ {
		p.set(lane, float32((lane-1)/3-2), float32((lane-1)%3-1))
	}
	return p
}()

func signed(magnitude, sign float32) float32 {
	return float32(math.Copysign(float64(magnitude), float64(sign)))
}
