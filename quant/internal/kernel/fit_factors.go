package kernel

import "math"

// fitFactors fits super-groups whose scales are multiples of a super-scale, of either sign:
// a scale for each group, the super-scale that the largest of them needs, and the best of
// the multiples about each.
func (e *encoder) fitFactors() bool {
	found := &e.found
	found.begin()
	for i := range e.groups {
		found.scale[i] = e.signedEnd(i) / e.grid.low
	}
	unit, ok := e.factorUnit(0)
	if !ok {
		return false
	}
	for i := range e.groups {
		e.scale[i] = unit * factorOf(found.scale[i], unit, e.leastFactor, e.mostFactor)
	}
	if e.block.Method == RoundToNearest {
		return true
	}
	plain, all := e.superScale, e.superGroup()
	e.steps.takeGroups(found, &all)
	if e.refits {
		e.steps.searchScales(found, &all)
	}
	if unit, ok = e.factorUnit(smallestFloat16); !ok || !e.searchFactors(&all, units{scale: unit}, &e.grid.abouts) {
		e.superScale = plain
	}
	return true
}

// factorUnit makes the super-scale that gives the largest scale the factor of most
// magnitude, and gives it normalized. One that vanishes becomes least.
func (e *encoder) factorUnit(least float32) (unit float32, ok bool) {
	wanted := largestOf(e.found.scale[:e.groups]) / e.leastFactor
	e.superScale = e.toFloat16(wanted, least)
	if !isFinite(e.superScale) {
		e.superScale = wanted * e.inverse[0]
		return 0, false
	}
	return e.superScale * e.normal[0], true
}

// largestOf is the number of largest magnitude, the first one of several. No processor foresees
// which it is, so that this moves bits instead of jumping.
func largestOf(numbers []float32) float32 {
	largest := uint32(0)
	for _, x := range numbers {
		if bits := math.Float32bits(x); bits&^signBit > largest&^signBit {
			largest = bits
		}
	}
	return math.Float32frombits(largest)
}

// searchFactors takes the best of some multiples of units about what was searched for each
// group. It returns false if that does not beat the plain ones, which stay then.
func (e *encoder) searchFactors(all *superGroup, d units, about *pattern) bool {
	found := &e.found
	e.units = newFactorUnits(d, e.leastFactor, e.mostFactor)
	e.steps.searchFactors(found, all, about, &e.units, e.scale[:], e.minimum[:])
	var plainError, leastError float32
	for i := range e.groups {
		plainError += found.plainError[i]
		leastError += found.error[i]
	}
	if !beats(leastError, plainError) {
		return false
	}
	copy(e.scale[:e.groups], found.scale[:])
	copy(e.minimum[:e.groups], found.minimum[:])
	return true
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
func searchFactors(l *groupLanes, s *superGroup, about *pattern, u *factorUnits, plainScales, plainMinimums []float32) {
	for i := range s.groups {
		weights, importance := s.group(i)
		l.searchFactor(i, about, u, units{plainScales[i], plainMinimums[i]}, s.grid, weights, importance)
	}
}

func (l *groupLanes) searchFactor(i int, about *pattern, u *factorUnits, plain units, g *grid, weights, importance []float32) {
	nearest, best := roundEven(min(max(float32(l.scale[i]*u.perScale), u.least), u.most)), units{}
	l.plainError[i], l.error[i] = addTrialError(0, g, plain, weights, importance), infinity
	for lane := 1; lane < about.count; lane++ {
		scale := float32(u.scale * min(max(nearest+about.scale[lane], u.least), u.most))
		minimum := l.minimum[i] + float32((scale-l.scale[i])*l.slope[i])
		multiple := roundEven(min(max(float32(minimum*u.perMinimum), 0), u.most))
		tried := units{scale, u.minimum * min(max(multiple+about.minimum[lane], 0), u.most)}
		if e := addTrialError(0, g, tried, weights, importance); e < l.error[i] {
			best, l.error[i] = tried, e
		}
	}
	l.scale[i], l.minimum[i] = best.scale, best.minimum
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
func searchScales(l *groupLanes, s *superGroup) {
	for i := range s.groups {
		if l.scale[i] != 0 {
			weights, importance := s.group(i)
			l.scale[i] = searchScale(&s.grid.reaches, l.scale[i], s.grid, weights, importance)
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
func (e *encoder) signedEnd(i int) float32 {
	lo, hi := e.lo[i], e.hi[i]
	end := math.Float32bits(lo)
	if int32(math.Float32bits(hi)) > int32(math.Float32bits(-lo)) { // as in largerEnd
		end = math.Float32bits(hi)
	}
	return math.Float32frombits(end)
}
