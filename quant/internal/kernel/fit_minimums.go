package kernel

import "math"

// units are the normalized super-scale and super-minimum of a super-group.
type units struct{ scale, minimum float32 }

// plainMinimums gives groups, of which lo and hi are the ends, the scales and minimums of
// round-to-nearest: over their range, which minimums extend to 0.
func plainMinimums(lo, hi, scales, minimums []float32, high float32) {
	for i := range lo {
		lo, hi := min(lo[i], 0), hi[i]
		if lo == hi { // all the same: 0 is the other end
			hi = 0
		}
		scales[i], minimums[i] = (hi-lo)/high, -lo
	}
}

// takePlainMinimums gives a super-group whose scales and minimums are multiples of a super-scale and
// a super-minimum those nearest to its plain ones. A search finds a scale and a minimum for each
// group; the super-scale and super-minimum whose multiples are nearest to those, judged by what their
// distances cost; the best of the multiples about each.
func (s *superGroup) takePlainMinimums(steps *encoderSteps) (wanted float32, ok bool) {
	if wanted, ok = s.roundUnits(s.neededUnits(steps), 0); !ok {
		return wanted, false
	}
	steps.takeMultiples(s.scales, s.units.scale, s.leastFactor, s.mostFactor)
	steps.takeMultiples(s.minimums, s.units.minimum, 0, s.mostFactor)
	return 0, true
}

// neededUnits are what the largest scale and minimum need.
func (s *superGroup) neededUnits(steps *encoderSteps) units {
	return units{steps.largest(s.scale[:s.groups]) / s.mostFactor, steps.largest(s.minimum[:s.groups]) / s.mostFactor}
}

// roundUnits makes the super-scale and super-minimum of normalized ones. Those that vanish become
// least. It gives what was wanted if that is too large.
func (s *superGroup) roundUnits(d units, least float32) (wanted float32, ok bool) {
	s.stored = units{s.toFloat16(d.scale, least), s.toFloat16(d.minimum, least)}
	if s.stored.scale == 0 && s.stored.minimum != 0 {
		s.stored.scale = smallestFloat16 // zero-points are minimum/scale
	}
	if !isFinite(s.stored.scale) || !isFinite(s.stored.minimum) {
		return max(d.scale, d.minimum) * s.inverse, false
	}
	s.units = units{s.stored.scale * s.normal, s.stored.minimum * s.normal}
	return 0, true
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
func searchMinimums(s *superGroup, p *pattern) {
	for i := range s.groups {
		s.searchMinimum(i, p)
	}
}

func (s *superGroup) searchMinimum(i int, p *pattern) {
	weights, importance := s.group(i)
	about, least := units{s.scale[i], s.minimum[i]}, infinity
	weight, square, inverse := s.weight[i], s.square[i], 1/s.count[i]
	for lane := range p.count {
		tried := about.scale * p.scale[lane]
		sums := sumTrial(s.grid, tried, max(about.minimum+float32(about.scale*p.minimum[lane]), 0), weights, importance)
		// weight = scale*level - minimum
		scaleCost := sums.levelLevel - float32(float32(sums.level*sums.level)*inverse)
		gain, cost := sums.levelWeight-float32(float32(sums.level*weight)*inverse), scaleCost
		positive := float32(gain*sums.level) > float32(weight*cost)
		if !positive {
			gain, cost = sums.levelWeight, sums.levelLevel
		}
		scale, minimum := gain/cost, float32(0)
		if positive {
			minimum = max((float32(scale*sums.level)-weight)*inverse, 0)
		}
		promise := square - float32(scale*sums.levelWeight) + float32(minimum*weight)
		if scale > 0 && scaleCost > 0 && promise < least {
			least = promise
			s.scale[i], s.minimum[i], s.slope[i] = scale, minimum, float32(sums.level*inverse)
			s.scaleCost[i], s.minimumCost[i] = scaleCost, s.count[i]
		}
	}
}

// widestUnit is the widest super-scale that is tried, as a part of what is needed.
const widestUnit = 1.05

// searchUnits tries super-scales and super-minimums from what the largest scale and
// minimum need to somewhat more, as multiples of others may be nearer to all.
func (s *superGroup) searchUnits(steps *encoderSteps) {
	if s.vanishes() {
		s.stored, s.units = units{}, units{}
		return
	}
	needed := s.neededUnits(steps)
	if !(needed.scale > 0) || !(max(needed.scale, needed.minimum)*widestUnit*s.inverse <= largestFloat16) {
		s.roundAllUnits(needed)
	} else {
		steps.roundUnits(&s.triedStored.scale, &s.tried.scale, &unitPattern.scale, needed.scale, s.inverse, s.normal)
		steps.roundUnits(&s.triedStored.minimum, &s.tried.minimum, &unitPattern.minimum, needed.minimum, s.inverse, s.normal)
	}
	s.costs = lanes{}
	steps.addUnitCosts(s)
	best := steps.leastTrial(&s.costs)
	if s.costs[0] <= s.costs[best] {
		best = 0
	}
	s.stored = units{s.triedStored.scale[best], s.triedStored.minimum[best]}
	s.units = units{s.tried.scale[best], s.tried.minimum[best]}
}

// unitPattern is the parts of what is needed that are tried.
var unitPattern = func() (p trials) {
	for lane := range trialLanes {
		const step = (widestUnit - 1) / trialLanes
		p.set(lane, 1+float32(step*float32(lane)), 1+float32(step*float32(lane*5%trialLanes)))
	}
	return p
}()

// roundUnits gives parts of a unit that is needed, as they are stored and normalized, where float16
// has all of them.
func roundUnits(stored, tried, parts *lanes, needed, inverse, normal float32) {
	for lane, part := range parts {
		stored[lane] = roundUnit(float32(needed*part) * inverse)
		tried[lane] = stored[lane] * normal
	}
}

// roundUnit rounds to float16, subnormal ones up, so that the factors reach.
func roundUnit(wanted float32) float32 {
	if wanted >= smallestNormalFloat16 {
		return roundNormalFloat16(wanted)
	}
	return float32(math.Ceil(float64(wanted*(1/smallestFloat16)))) * smallestFloat16
}

// roundAllUnits gives the super-scales and super-minimums that are tried, and as they are stored;
// for those that are beyond what can be, the plain ones.
func (s *superGroup) roundAllUnits(needed units) {
	stored, plain := s.stored, s.units
	for lane := range trialLanes {
		d := units{needed.scale * unitPattern.scale[lane], needed.minimum * unitPattern.minimum[lane]}
		if _, ok := s.roundUnits(d, smallestFloat16); !ok {
			s.stored, s.units = stored, plain
		}
		s.tried.set(lane, s.units.scale, s.units.minimum)
		s.triedStored.set(lane, s.stored.scale, s.stored.minimum)
	}
}

// addUnitCosts adds what the nearest multiples of each trial cost the groups, with the minimum
// that is best for the scale.
func addUnitCosts(s *superGroup) {
	for i := range s.groups {
		for lane := range trialLanes {
			s.costs[lane] += s.unitCost(i, units{s.tried.scale[lane], s.tried.minimum[lane]})
		}
	}
}

func (s *superGroup) unitCost(i int, d units) float32 {
	perScale, _ := coder(d.scale, 0)
	perMinimum, _ := coder(d.minimum, 0)
	scale := float32(d.scale*roundEven(min(max(float32(s.scale[i]*perScale), s.leastFactor), s.mostFactor))) - s.scale[i]
	minimum := s.minimum[i] + float32(scale*s.slope[i])
	multiple := roundEven(min(max(float32(minimum*perMinimum), 0), s.mostFactor))
	rest := float32(d.minimum*multiple) - minimum
	return float32(float32(scale*scale)*s.scaleCost[i]) + float32(float32(rest*rest)*s.minimumCost[i])
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
