package kernel

// fitFactors fits super-groups whose scales are multiples of a super-scale, of either sign:
// a scale for each group, the super-scale that the largest of them needs, and the best of
// the multiples about each.
func (e *encoder) fitFactors() bool {
	searched := e.searched[:e.groups]
	for i := range searched {
		searched[i] = searchedMinimum{scale: e.signedEnd(i) / e.grid.low}
	}
	unit, ok := e.factorUnit(searched, 0)
	if !ok {
		return false
	}
	for i, g := range searched {
		e.scale[i] = unit * factorOf(g.scale, unit, e.leastFactor, e.mostFactor)
	}
	if e.block.Method == RoundToNearest {
		return true
	}
	plain := e.superScale
	for i := range searched {
		searched[i].scale = e.searchScale(i, searched[i].scale)
	}
	if unit, ok = e.factorUnit(searched, smallestFloat16); !ok || !e.searchFactors(searched, units{scale: unit}, &e.grid.abouts) {
		e.superScale = plain
	}
	return true
}

// factorUnit makes the super-scale that gives the largest scale the factor of most
// magnitude, and gives it normalized. One that vanishes becomes least.
func (e *encoder) factorUnit(groups []searchedMinimum, least float32) (unit float32, ok bool) {
	largest := float32(0)
	for _, g := range groups {
		if abs(g.scale) > abs(largest) {
			largest = g.scale
		}
	}
	wanted := largest / e.leastFactor
	e.superScale = e.toFloat16(wanted, least)
	if !isFinite(e.superScale) {
		e.superScale = wanted * e.inverse[0]
		return 0, false
	}
	return e.superScale * e.normal[0], true
}

// searchFactors takes the best of some multiples of units about what was searched for each
// group. It returns false if that does not beat the plain ones, which stay then.
func (e *encoder) searchFactors(searched []searchedMinimum, d units, about *trials) bool {
	e.units = newFactorUnits(d, e.leastFactor, e.mostFactor)
	var plainError, leastError float32
	all := e.superGroup()
	for i := range searched {
		found := &searched[i]
		e.plain = units{e.scale[i], e.minimum[i]}
		weights, importance := all.group(i)
		e.steps.searchFactors(found, about, &e.units, &e.plain, e.grid, weights, importance)
		plainError += found.plainError
		leastError += found.error
	}
	if !beats(leastError, plainError) {
		return false
	}
	for i, g := range searched {
		e.scale[i], e.minimum[i] = g.scale, g.minimum
	}
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

// searchFactors replaces a group's scale and minimum by the best multiples of units about
// them, and tells their error, and that of the plain ones.
func searchFactors(g *searchedMinimum, about *trials, u *factorUnits, plain *units, grid *grid, weights, importance []float32) {
	var t trials
	factor := roundEven(min(max(float32(g.scale*u.perScale), u.least), u.most))
	for lane := range trialLanes {
		scale := float32(u.scale * min(max(factor+about.scale[lane], u.least), u.most))
		minimum := g.minimum + float32((scale-g.scale)*g.slope)
		multiple := roundEven(min(max(float32(minimum*u.perMinimum), 0), u.most))
		t.set(lane, scale, u.minimum*min(max(multiple+about.minimum[lane], 0), u.most))
	}
	t.set(0, plain.scale, plain.minimum)
	errors := *grid.noErrors()
	addTrialErrors(&errors, grid, &t, weights, importance)
	least := leastTrial(&errors)
	g.scale, g.minimum, g.error, g.plainError = t.scale[least], t.minimum[least], errors[least], errors[0]
}

// aboutScales are factors about the nearest: fifteen, or seven for a table. The first lane
// is left out.
func aboutScales(g *grid) (p trials) {
	for lane := 1; lane < g.trialLanes(); lane++ {
		p.scale[lane] = float32(lane - g.trialLanes()/2)
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

// searchScale finds the scale of least error for a group, without rounding it: for the
// codes that each of some scales give, the best scale follows in closed form.
func (e *encoder) searchScale(i int, plain float32) float32 {
	if plain == 0 || e.refits == 0 {
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
	if e.hi[i] > -e.lo[i] {
		return e.hi[i]
	}
	return e.lo[i]
}
