package kernel

// ones are the importance of weights that weigh the same.
var ones = func() (all [superSize]float32) {
	for i := range all {
		all[i] = 1
	}
	return all
}()

// plainScales also changes what is behind the groups.
func (v *vectorSet) plainScales(e *encoder) {
	if e.Minimums {
		v.minimumScales(&e.lo[0], &e.hi[0], &e.scale[0], &e.minimum[0], e.groups, e.grid.high)
	} else {
		v.factorScales(&e.lo[0], &e.hi[0], &e.scale[0], e.groups, e.grid.low)
	}
}

func (v *vectorSet) takeMultiples(values []float32, unit, least, most float32) {
	if unit == 0 || len(values)%8 != 0 {
		takeMultiples(values, unit, least, most)
		return
	}
	v.multiples(&values[0], len(values), unit, least, most)
}

func (v *vectorSet) largest(numbers []float32) float32 {
	if len(numbers)%8 != 0 {
		return largest(numbers)
	}
	return v.largestNumber(&numbers[0], len(numbers))
}

func (v *vectorSet) roundUnits(stored, tried, parts *lanes, needed, inverse, normal float32) {
	v.unitParts(&stored[0], &tried[0], &parts[0], needed, inverse, normal)
}

// which is the place of functions for as many groups as a whole one has.
func (s *superGroup) which() int { return s.SuperSize / s.GroupSize / 16 }

// takeGroups lays groups side by side, but those of tables, which are searched one by one.
func (v *vectorSet) takeGroups(s *superGroup) {
	if s.grid.kind == tableKind {
		return
	}
	importance := s.importance
	if importance == nil {
		importance = ones[:len(s.weights)]
	}
	v.lay(&s.laid, s.weights, s)
	v.lay(&s.laidImportance, importance, s)
	if s.Minimums {
		v.takeMoments[s.which()](&s.laid[0])
	}
}

// lay also takes a super-group that ends before its last group does: with zeros.
func (v *vectorSet) lay(out *[superSize]float32, weights []float32, s *superGroup) {
	if len(weights) == superSize {
		v.layGroups[s.which()](&out[0], &weights[0])
		return
	}
	*out = [superSize]float32{}
	for i, w := range weights {
		out[i%s.groupSize*(s.SuperSize/s.GroupSize)+i/s.groupSize] = w
	}
}

func (v *vectorSet) searchMinimums(s *superGroup, p *pattern) {
	v.minimumSearch[s.which()](&s.laid[0], &p.scale[0], p.count, &s.grid.vectors.low[0])
}

func (v *vectorSet) searchScales(s *superGroup) {
	if s.grid.kind == tableKind {
		s.searchEach(v.searchScale)
		return
	}
	v.groupScales16(&s.laid[0], &s.grid.reaches[0], &s.grid.vectors.low[0])
}

// searchFactors also reads what is behind the groups: slices are those of an encoder.
func (v *vectorSet) searchFactors(s *superGroup, about *pattern) {
	units, low := &s.factors.scale, &s.grid.vectors.low[0]
	switch {
	case s.grid.kind == tableKind:
		for i := range s.groups {
			weights, importance := s.group(i)
			which, h := weighted(importance)
			v.factorSearch[which](&s.laid[i], &about.scale[0], units, &s.scales[i], low, &weights[0], h, len(weights))
		}
	case s.Minimums:
		v.groupFactorsMinimums[s.which()](&s.laid[0], &about.scale[0], about.count, units, &s.scales[0], &s.minimums[0], low)
	default:
		v.groupFactorsScales16(&s.laid[0], &about.scale[0], about.count, units, &s.scales[0], &s.minimums[0], low)
	}
}

func (v *vectorSet) addUnitCosts(s *superGroup) {
	v.unitCosts(&s.costs[0], &s.tried.scale[0], &s.laid[0], s.groups, s.leastFactor, s.mostFactor)
}
