package kernel

// The scales that are tried first, as parts of the one that just reaches the largest weight.
const (
	widestScale = 1.1
	scaleStep   = 0.05
)

// fitFactors fits super-groups whose scales are a super-scale with factors of either
// sign: a scale for each group, the super-scale that the largest of them needs, and the
// best of the factors about each.
func (e *encoder) fitFactors() bool {
	groups := e.groups[:e.groupCount()]
	var plain [len(e.groups)]float32
	for i, g := range groups {
		plain[i] = signedEnd(g) / e.grid.low
	}
	unit, ok := e.factorUnit(plain[:len(groups)])
	if !ok {
		return false
	}
	for i := range groups {
		groups[i].scale = unit * factorOf(plain[i], unit, e.leastFactor, e.mostFactor)
	}
	if e.block.Method == RoundToNearest {
		return true
	}
	plainSuper := e.superScale
	var searched [len(e.groups)]float32
	for i := range groups {
		searched[i] = e.searchScale(i, plain[i])
	}
	if unit, ok = e.factorUnit(searched[:len(groups)]); !ok {
		e.superScale = plainSuper
		return true
	}
	var plainError, leastError float32
	for i, g := range groups {
		var t trials
		t.set(0, g.scale, 0)
		middle := factorOf(searched[i], unit, e.leastFactor, e.mostFactor)
		for lane := 1; lane < trialLanes; lane++ {
			factor := min(max(middle+float32(lane-trialLanes/2), e.leastFactor), e.mostFactor)
			t.set(lane, unit*factor, 0)
		}
		errors := e.trialErrors(i, &t)
		least := 1
		for lane := 2; lane < trialLanes; lane++ {
			if errors[lane] < errors[least] {
				least = lane
			}
		}
		searched[i] = t.scale[least]
		plainError += errors[0]
		leastError += errors[least]
	}
	if !beats(leastError, plainError) {
		e.superScale = plainSuper
		return true
	}
	for i := range groups {
		groups[i].scale = searched[i]
	}
	return true
}

// factorUnit makes the super-scale that gives the largest scale the factor of most
// magnitude, and gives it normalized.
func (e *encoder) factorUnit(scales []float32) (unit float32, ok bool) {
	largest := float32(0)
	for _, scale := range scales {
		if abs(scale) > abs(largest) {
			largest = scale
		}
	}
	wanted := largest / e.leastFactor
	e.superScale = e.toFloat16(wanted)
	if !isFinite(e.superScale) {
		e.superScale = wanted * e.inverse
		return 0, false
	}
	return e.superScale * e.normal, true
}

// searchScale finds the scale of least error for a group, without rounding it: for the
// codes that each of some scales give, the best scale follows in closed form.
func (e *encoder) searchScale(i int, plain float32) float32 {
	end := signedEnd(e.groups[i])
	if end == 0 {
		return 0
	}
	var t trials
	for lane := range trialLanes {
		cut := widestScale - float32(scaleStep*float32(lane/2))
		t.set(lane, end/e.grid.low*cut, 0)
		if lane%2 == 1 {
			t.set(lane, end/e.grid.high*cut, 0)
		}
	}
	return e.refitScale(i, &t, plain)
}

// refitScale gives the best scale for the codes of the trial that promises the least
// error for it, or scale if there is none.
func (e *encoder) refitScale(i int, t *trials, scale float32) float32 {
	sums := e.trialSums(i, t)
	most := float32(0)
	for lane := range trialLanes {
		if sums.levelLevel[lane] > 0 {
			best := sums.levelWeight[lane] / sums.levelLevel[lane]
			if gain := float32(best * sums.levelWeight[lane]); gain > most {
				most, scale = gain, best
			}
		}
	}
	return scale
}

// signedEnd is the weight of largest magnitude of a group, the negative one of two.
func signedEnd(g group) float32 {
	if g.hi > -g.lo {
		return g.hi
	}
	return g.lo
}
