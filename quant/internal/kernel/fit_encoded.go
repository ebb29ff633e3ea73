package kernel

// A super-group is fitted twice: by the plain rule of its encoding, which rounds to
// nearest over the range of each group, and by a search for the least squared error of
// the decoded weights. The search is kept where it beats the plain rule.

// fit chooses the scales and minimums of all groups. It returns the first group whose scale is
// beyond what it is stored as, or -1; superScale is then what was wanted.
func (e *encoder) fit() (failed int) {
	clear(e.minimum[:])
	ok := true
	switch {
	case e.SuperSize == 0:
		return e.fitAlone(e.fitUntilSpecial())
	case e.Minimums:
		ok = e.fitMinimums()
	default:
		ok = e.fitFactors()
	}
	if !ok {
		return 0
	}
	if e.SuperSize > 0 && e.superScale == 0 {
		for i := range e.groups {
			e.countUnderflow(i)
		}
	}
	return -1
}

// countUnderflow takes note of a group whose scale, or super-scale, is rounded to 0 as it is
// stored, so that all its weights decode to 0, unless they are 0.
func (e *encoder) countUnderflow(i int) {
	if e.signedEnd(i) != 0 {
		e.underflows++
	}
}

// addTrialErrors adds to the errors of a group's trials.
func (e *encoder) addTrialErrors(i int) {
	for first, end := e.span(i); first < end && !e.block.stopped(); {
		weights, importance := e.part(first, end)
		e.steps.addTrialErrors(&e.errors[i], e.grid, &e.trials[i], weights, importance)
		first += len(weights)
	}
}

// toFloat16 rounds a normalized super-scale to float16, in the unit of the weights.
// Subnormal ones, which are coarse, are rounded up, so that the factors reach. One that
// vanishes becomes least: 0 by the plain rule, while a search tries the smallest one, of
// which small multiples or levels may be enough.
func (e *encoder) toFloat16(scale, least float32) float32 {
	wanted := scale * e.inverse[0]
	rounded := roundFloat16(wanted)
	if abs(rounded) >= smallestNormalFloat16 {
		return rounded
	}
	if rounded == 0 && wanted != 0 {
		return signed(least, wanted) + 0 // never -0
	}
	if rounded != 0 && abs(rounded) < abs(wanted) {
		rounded += signed(smallestFloat16, wanted)
	}
	return rounded
}

// factorOf is the whole number of units nearest to a value, as far as there are such.
func factorOf(value, unit, least, most float32) float32 {
	if unit == 0 {
		return 0
	}
	return roundEven(min(max(value/unit, least), most))
}
