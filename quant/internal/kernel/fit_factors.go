package kernel

import "math"

// plainFactors gives groups, of which lo and hi are the ends, the scales of round-to-nearest, of
// either sign.
func plainFactors(lo, hi, scales []float32, low float32) {
	for i := range lo {
		scales[i] = signedEnd(lo[i], hi[i]) / low
	}
}

// takePlainFactors gives a super-group whose scales are multiples of a super-scale, of either sign,
// those nearest to its plain ones. A search finds a scale for each group, the super-scale that the
// largest of them needs, and the best of the multiples about each.
func (s *superGroup) takePlainFactors(steps *encoderSteps) (wanted float32, ok bool) {
	if wanted, ok = s.roundLargest(steps, 0); ok {
		steps.takeMultiples(s.scales, s.units.scale, s.leastFactor, s.mostFactor)
	}
	return wanted, ok
}

// takeMultiples replaces values by the whole numbers of units nearest to them, as far as there are
// such.
func takeMultiples(values []float32, unit, least, most float32) {
	for i, value := range values {
		values[i] = unit * factorOf(value, unit, least, most)
	}
}

// factorOf is the whole number of units nearest to a value, as far as there are such.
func factorOf(value, unit, least, most float32) float32 {
	if unit == 0 {
		return 0
	}
	return roundEven(min(max(value/unit, least), most))
}

// roundLargest makes the super-scale that gives the largest scale the factor of most magnitude. One
// that vanishes becomes least. It gives what was wanted if that is too large.
func (s *superGroup) roundLargest(steps *encoderSteps, least float32) (wanted float32, ok bool) {
	wanted = steps.largest(s.scale[:s.groups]) / s.leastFactor
	stored := s.toFloat16(wanted, least)
	if !isFinite(stored) {
		return wanted * s.inverse, false
	}
	s.stored, s.units = units{scale: stored}, units{scale: stored * s.normal}
	return 0, true
}

// searchUnit takes the super-scale of what was searched, or keeps that of the plain rule where it is
// too large.
func (s *superGroup) searchUnit(steps *encoderSteps) {
	if s.vanishes() {
		s.stored, s.units = units{}, units{}
		return
	}
	_, _ = s.roundLargest(steps, smallestFloat16)
}

// largest is the number of largest magnitude, the first one of several. No processor foresees
// which it is, so that this moves bits instead of jumping.
func largest(numbers []float32) float32 {
	found := uint32(0)
	for _, x := range numbers {
		if bits := math.Float32bits(x); bits&^signBit > found&^signBit {
			found = bits
		}
	}
	return math.Float32frombits(found)
}

// factorUnits are units and what makes factors of them. Assembly relies on the order.
type factorUnits struct {
	units
	perScale, perMinimum float32
	least, most          float32
}

func newFactorUnits(d units, least, most float32) factorUnits {
	perScale, _ := coder(d.scale, 0)
	perMinimum, _ := coder(d.minimum, 0)
	return factorUnits{d, perScale, perMinimum, least, most}
}

// searchFactors replaces the scale and the minimum of each group by the best multiples of units
// about them, and tells their error, and that of the plain ones.
func searchFactors(s *superGroup, about *pattern) {
	for i := range s.groups {
		s.searchFactor(i, about)
	}
}

func (s *superGroup) searchFactor(i int, about *pattern) {
	weights, importance := s.group(i)
	u, best := &s.factors, units{}
	nearest := roundEven(min(max(float32(s.scale[i]*u.perScale), u.least), u.most))
	s.plainError[i] = addTrialError(0, s.grid, units{s.scales[i], s.minimums[i]}, weights, importance)
	s.error[i] = infinity
	for lane := 1; lane < about.count; lane++ {
		scale := float32(u.scale * min(max(nearest+about.scale[lane], u.least), u.most))
		minimum := s.minimum[i] + float32((scale-s.scale[i])*s.slope[i])
		multiple := roundEven(min(max(float32(minimum*u.perMinimum), 0), u.most))
		tried := units{scale, u.minimum * min(max(multiple+about.minimum[lane], 0), u.most)}
		if e := addTrialError(0, s.grid, tried, weights, importance); e < s.error[i] {
			best, s.error[i] = tried, e
		}
	}
	s.scale[i], s.minimum[i] = best.scale, best.minimum
}

// aboutScales are factors about the nearest: fifteen, or seven for a table. The first lane
// is left out.
func aboutScales(g *grid) (p pattern) {
	p.count = g.trialLanes()
	for lane := 1; lane < p.count; lane++ {
		p.scale[lane] = float32(lane - p.count/2)
	}
	return p
}

// The scales that are tried first, as parts of the one that just reaches the largest weight.
const (
	widestScale = 1.1
	scaleStep   = 0.05
)

// reachPattern tries scales with which the largest weight, by turns, gets about the lowest
// and the highest level.
func reachPattern(low, high float32) (p lanes) {
	for lane := range p {
		p[lane] = widestScale - float32(scaleStep*float32(lane/2))
		if lane%2 == 1 {
			p[lane] *= low / high
		}
	}
	return p
}

// searchScales finds the scales of least error for the groups of a super-group.
func searchScales(s *superGroup) { s.searchEach(searchScale) }

// searchEach does so with a search for one group.
func (s *superGroup) searchEach(search func(pattern *lanes, scale float32, g *grid, weights, importance []float32) float32) {
	for i := range s.groups {
		if s.scale[i] != 0 {
			weights, importance := s.group(i)
			s.scale[i] = search(&s.grid.reaches, s.scale[i], s.grid, weights, importance)
		}
	}
}

// searchScale finds the scale of least error for a group, without rounding it: for the
// codes that each of some scales give, the best scale follows in closed form.
func (e *encoder) searchScale(i int, plain float32) float32 {
	if plain == 0 || !e.refits {
		return plain
	}
	weights, importance := e.part(e.span(i))
	return e.steps.searchScale(&e.grid.reaches, plain, e.grid, weights, importance)
}

func searchScale(pattern *lanes, scale float32, g *grid, weights, importance []float32) float32 {
	best, most := scale, float32(0)
	for lane := range trialLanes {
		s := sumTrial(g, scale*pattern[lane], 0, weights, importance)
		fitted := s.levelWeight / s.levelLevel
		if gain := float32(fitted * s.levelWeight); gain > most {
			best, most = fitted, gain
		}
	}
	return best
}

// signedEnd is the weight of largest magnitude of a group, the negative one of two.
func (e *encoder) signedEnd(i int) float32 { return signedEnd(e.lo[i], e.hi[i]) }

func signedEnd(lo, hi float32) float32 {
	end := math.Float32bits(lo)
	if int32(math.Float32bits(hi)) > int32(math.Float32bits(-lo)) { // as in largerEnd
		end = math.Float32bits(hi)
	}
	return math.Float32frombits(end)
}
