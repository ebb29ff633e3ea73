package kernel

// A super-group is fitted twice: by the plain rule of its encoding, which rounds to
// nearest over the range of each group, and by a search for the least squared error of
// the decoded weights. The search is kept where it beats the plain rule.

// fitSuperGroups fits all super-groups, stage by stage. It returns the first group of one whose
// super-scale is beyond what it is stored as, or -1.
func (e *encoder) fitSuperGroups() (failed int) {
	supers := e.superGroups()
	e.steps.plainScales(e)
	for i := range supers {
		supers[i].begin(e, i)
		if wanted, ok := supers[i].takePlain(e.steps); !ok {
			e.superScale = wanted
			return i * e.SuperSize / e.GroupSize
		}
	}
	if e.block.Method != RoundToNearest {
		e.searchSuperGroups(supers)
	}
	for i := range supers {
		if supers[i].stored.scale == 0 {
			for k := range supers[i].groups {
				e.countUnderflow(i*e.SuperSize/e.GroupSize + k)
			}
		}
	}
	return -1
}

// plainScales gives groups their scales, and minimums, by the plain rule, without rounding.
func plainScales(e *encoder) {
	lo, hi := e.lo[:e.groups], e.hi[:e.groups]
	if e.Minimums {
		plainMinimums(lo, hi, e.scale[:], e.minimum[:], e.grid.high)
	} else {
		plainFactors(lo, hi, e.scale[:], e.grid.low)
	}
}

// takePlain takes the plain rule. If that is beyond what super-scales are stored as, it gives the
// one that was wanted.
func (s *superGroup) takePlain(steps *encoderSteps) (wanted float32, ok bool) {
	copy(s.scale[:], s.scales)
	copy(s.minimum[:], s.minimums)
	if s.Minimums {
		wanted, ok = s.takePlainMinimums(steps)
	} else {
		wanted, ok = s.takePlainFactors(steps)
	}
	s.plain = s.stored
	return wanted, ok
}

// searchSuperGroups takes what is better than the plain rule. Between two stages of one super-group
// come those of others.
func (e *encoder) searchSuperGroups(supers []superGroup) {
	about := &aboutMinimums
	for i := range supers {
		e.steps.takeGroups(&supers[i])
	}
	if e.Minimums {
		for _, p := range [...]*pattern{&e.grid.cuts, &e.grid.spread} {
			for i := range supers {
				e.steps.searchMinimums(&supers[i], p)
			}
		}
		for i := range supers {
			supers[i].searchUnits(e.steps)
		}
	} else {
		about = &e.grid.abouts
		for i := range supers {
			if e.refits {
				e.steps.searchScales(&supers[i])
			}
			supers[i].searchUnit(e.steps)
		}
	}
	for i := range supers {
		s := &supers[i]
		s.factors = newFactorUnits(s.units, e.leastFactor, e.mostFactor)
		e.steps.searchFactors(s, about)
	}
	for i := range supers {
		supers[i].keepLess()
	}
}

// keepLess keeps what was searched if that beats the plain rule, or else that.
func (s *superGroup) keepLess() {
	var plainError, leastError float32
	for i := range s.groups {
		plainError += s.plainError[i]
		leastError += s.error[i]
	}
	if !beats(leastError, plainError) {
		s.stored = s.plain
		return
	}
	copy(s.scales, s.scale[:])
	copy(s.minimums, s.minimum[:])
}

// vanishes tells whether all weights are nearer to 0 than to multiples of the smallest super-scale,
// some of which would cost too much for float32, and others seem to cost nothing, as a minimum would
// hide the weights.
func (s *superGroup) vanishes() bool { return 2*s.inverse <= smallestFloat16/2 }

// toFloat16 rounds a normalized super-scale to float16, in the unit of the weights.
// Subnormal ones, which are coarse, are rounded up, so that the factors reach. One that
// vanishes becomes least: 0 by the plain rule, while a search tries the smallest one, of
// which small multiples or levels may be enough.
func (s *superGroup) toFloat16(scale, least float32) float32 {
	wanted := scale * s.inverse
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
