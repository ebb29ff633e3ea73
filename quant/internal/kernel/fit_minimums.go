package kernel

import "math"

// fitMinimums fits super-groups whose scales and minimums are a super-scale and a
// super-minimum with factors from 0 on: a scale and a minimum for each group; the
// super-scale and super-minimum whose multiples are nearest to those, judged by what
// their distances cost; the best of the factors about each.
func (e *encoder) fitMinimums() bool {
	groups := e.groups[:e.groupCount()]
	var plain [len(e.groups)]group
	for i, g := range groups {
		plain[i] = e.plainMinimum(g)
	}
	d, ok := e.plainUnits(plain[:len(groups)])
	if !ok {
		return false
	}
	for i := range groups {
		groups[i].scale, groups[i].minimum = e.roundedFactors(plain[i], d)
	}
	if e.block.Method == RoundToNearest {
		return true
	}
	var searched [len(e.groups)]searchedMinimum
	for i := range groups {
		searched[i] = e.searchMinimum(i, plain[i])
	}
	plainSuper, plainSuperMinimum := e.superScale, e.superMinimum
	d = e.searchUnits(searched[:len(groups)], d)
	var plainError, leastError float32
	for i, g := range groups {
		t := e.factorTrials(searched[i], d)
		t.set(0, g.scale, g.minimum)
		errors := e.trialErrors(i, t)
		least := 1
		for lane := 2; lane < trialLanes; lane++ {
			if errors[lane] < errors[least] {
				least = lane
			}
		}
		searched[i].scale, searched[i].minimum = t.scale[least], t.minimum[least]
		plainError += errors[0]
		leastError += errors[least]
	}
	if !beats(leastError, plainError) {
		e.superScale, e.superMinimum = plainSuper, plainSuperMinimum
		return true
	}
	for i := range groups {
		groups[i].scale, groups[i].minimum = searched[i].scale, searched[i].minimum
	}
	return true
}

// units are the normalized super-scale and super-minimum.
type units struct{ scale, minimum float32 }

// plainMinimum is round-to-nearest over the range of a group, which minimums extend to 0.
func (e *encoder) plainMinimum(g group) group {
	lo, hi := min(g.lo, 0), g.hi
	if lo == hi { // all the same: 0 is the other end
		hi = 0
	}
	g.scale, g.minimum = (hi-lo)/e.grid.high, -lo
	return g
}

// plainUnits are those that give the largest scale and the largest minimum the largest
// factor.
func (e *encoder) plainUnits(groups []group) (units, bool) {
	var scale, minimum float32
	for _, g := range groups {
		scale, minimum = max(scale, g.scale), max(minimum, g.minimum)
	}
	return e.roundUnits(units{scale / e.mostFactor, minimum / e.mostFactor})
}

// roundUnits makes the super-scale and super-minimum, and gives them normalized.
func (e *encoder) roundUnits(d units) (units, bool) {
	e.superScale, e.superMinimum = e.toFloat16(d.scale), e.toFloat16(d.minimum)
	if e.superScale == 0 && e.superMinimum != 0 {
		e.superScale = 0x1p-24 // zero-points are minimum/scale
	}
	if !isFinite(e.superScale) || !isFinite(e.superMinimum) {
		e.superScale = max(d.scale, d.minimum) * e.inverse
		return units{}, false
	}
	return units{e.superScale * e.normal, e.superMinimum * e.normal}, true
}

func (e *encoder) roundedFactors(g group, d units) (scale, minimum float32) {
	return d.scale * factorOf(g.scale, d.scale, e.leastFactor, e.mostFactor), d.minimum * factorOf(g.minimum, d.minimum, 0, e.mostFactor)
}

// searchedMinimum is the scale and the minimum of least error for a group without
// rounding, and what another scale costs: scale^2 * scaleCost where the minimum is the best
// for it, which moves by slope, and another minimum minimum^2 * weight.
type searchedMinimum struct {
	scale, minimum           float32
	slope, scaleCost, weight float32
}

const (
	widestMinimumCut = 0.2  // of half the range, at either end
	refits           = 2    // after the first
	scaleSpread      = 0.04 // between scales that are tried, as a part
	minimumSpread    = 0.25 // between minimums that are tried, in scales
)

// searchMinimum tries ranges cut at either end, then scales and minimums about the best.
func (e *encoder) searchMinimum(i int, plain group) searchedMinimum {
	found := searchedMinimum{scale: plain.scale, minimum: plain.minimum, weight: 1, scaleCost: 1}
	if plain.scale == 0 {
		return found
	}
	lo, hi := -plain.minimum, plain.scale*e.grid.high-plain.minimum
	cut := (hi - lo) * (widestMinimumCut / 2 / 3)
	var t trials
	for lane := range trialLanes {
		cutLo, cutHi := lo+float32(cut*float32(lane%4)), hi-float32(cut*float32(lane/4))
		t.set(lane, (cutHi-cutLo)/e.grid.high, max(0, -cutLo))
	}
	e.refitMinimum(i, &t, &found)
	for range refits {
		scale, minimum := found.scale, found.minimum
		for lane := range trialLanes {
			t.set(lane, scale*(1+float32(scaleSpread*(float32(lane%4)-1.5))),
				max(0, minimum+float32(float32(minimumSpread*scale)*(float32(lane/4)-1.5))))
		}
		e.refitMinimum(i, &t, &found)
	}
	return found
}

// refitMinimum takes the best scale and minimum for the codes of the trial that promises
// the least error for them.
func (e *encoder) refitMinimum(i int, t *trials, found *searchedMinimum) {
	sums, moments := e.trialSums(i, t), e.moments(i)
	least := infinity
	for lane := range trialLanes {
		// weight = scale*level - minimum
		scale, minimum := float32(0), float32(0)
		level, levelLevel, levelWeight := sums.level[lane], sums.levelLevel[lane], sums.levelWeight[lane]
		scaleCost := levelLevel - float32(level*level)/moments.count
		if scaleCost > 0 {
			scale = (levelWeight - float32(level*moments.weight)/moments.count) / scaleCost
			minimum = (float32(scale*level) - moments.weight) / moments.count
		}
		if !(minimum > 0) {
			scale, minimum = levelWeight/levelLevel, 0
		}
		promise := moments.square - float32(scale*levelWeight) + float32(minimum*moments.weight)
		if scale > 0 && promise < least {
			least = promise
			*found = searchedMinimum{scale, minimum, level / moments.count, scaleCost, moments.count}
		}
	}
}

// moments are the weighted sums of 1, of weights and of their squares.
type moments struct{ count, weight, square float32 }

func (e *encoder) moments(i int) (m moments) {
	e.visitTiles(i, func(weights, importance []float32) {
		for i, w := range weights {
			weighted := float32(importance[i] * w)
			m.count += importance[i]
			m.weight += weighted
			m.square += float32(weighted * w)
		}
	})
	return m
}

const (
	unitTrials = 16
	widestUnit = 1.05
)

// searchUnits tries super-scales and super-minimums up to somewhat larger than the
// largest scale and minimum need, as others may be nearer to a multiple then.
func (e *encoder) searchUnits(groups []searchedMinimum, plain units) units {
	var most units
	for _, g := range groups {
		most.scale, most.minimum = max(most.scale, g.scale), max(most.minimum, g.minimum)
	}
	best, least := plain, infinity
	bestScale, bestMinimum := e.superScale, e.superMinimum
	for k := range unitTrials {
		const step = (widestUnit - 1) / unitTrials
		d, ok := e.roundUnits(units{
			most.scale / e.mostFactor * (1 + float32(step*float32(k))),
			most.minimum / e.mostFactor * (1 + float32(step*float32(k*5%unitTrials))),
		})
		if !ok {
			continue
		}
		cost := float32(0)
		for i := range groups {
			cost += e.unitCost(&groups[i], d)
		}
		if cost < least {
			best, least, bestScale, bestMinimum = d, cost, e.superScale, e.superMinimum
		}
	}
	e.superScale, e.superMinimum = bestScale, bestMinimum
	return best
}

// unitCost is what the nearest multiples cost a group, the scale's being one of three.
func (e *encoder) unitCost(g *searchedMinimum, d units) float32 {
	factor, least := factorOf(g.scale, d.scale, e.leastFactor, e.mostFactor), infinity
	for _, step := range [...]float32{-1, 0, 1} {
		scale := d.scale*min(max(factor+step, e.leastFactor), e.mostFactor) - g.scale
		minimum := g.minimum + float32(scale*g.slope)
		rest := float32(d.minimum*factorOf(minimum, d.minimum, 0, e.mostFactor)) - minimum
		least = min(least, float32(float32(scale*scale)*g.scaleCost)+float32(float32(rest*rest)*g.weight))
	}
	return least
}

// factorTrials are five scale factors about a group's scale, each with three minimum
// factors about the best for it. The first lane is left out.
func (e *encoder) factorTrials(g searchedMinimum, d units) *trials {
	t := new(trials)
	factor := factorOf(g.scale, d.scale, e.leastFactor, e.mostFactor)
	for lane := 1; lane < trialLanes; lane++ {
		scale := d.scale * min(max(factor+float32((lane-1)/3-2), e.leastFactor), e.mostFactor)
		minimum := factorOf(g.minimum+float32((scale-g.scale)*g.slope), d.minimum, 0, e.mostFactor) + float32((lane-1)%3-1)
		t.set(lane, scale, d.minimum*min(max(minimum, 0), e.mostFactor))
	}
	return t
}

// beats tells whether an error is less than round-to-nearest's beyond what rounding may
// have hidden in the sums.
func beats(searched, plain float32) bool { return searched < plain-float32(plain*leastGain) }

func signed(magnitude, sign float32) float32 {
	return float32(math.Copysign(float64(magnitude), float64(sign)))
}
