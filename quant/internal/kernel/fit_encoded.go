package kernel

// fit chooses the scales and minimums of all groups. It returns the first group whose scale is
// beyond what it is stored as, or -1; superScale is then what was wanted.
func (e *encoder) fit() (failed int) {
	clear(e.minimum[:])
	if e.SuperSize > 0 {
		return e.fitSuperGroups()
	}
	return e.fitAlone(e.fitUntilSpecial())
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
