package kernel

// ones are the importance of weights that weigh the same.
var ones = func() (all [superSize]float32) {
	for i := range all {
		all[i] = 1
	}
	return all
}()

// which is the place of functions for as many lanes.
func (s *superGroup) which() int { return s.lanes / 16 }

// takeGroups lays groups side by side, but those of tables, which are searched one by one.
func (v *vectorSet) takeGroups(l *groupLanes, s *superGroup) {
	if s.grid.kind == tableKind {
		return
	}
	importance := s.importance
	if importance == nil {
		importance = ones[:len(s.weights)]
	}
	v.lay(&l.weights, s.weights, s)
	v.lay(&l.importance, importance, s)
	v.takeMoments[s.which()](&l.weights[0])
}

// lay also takes a super-group that ends before its last group does: with zeros.
func (v *vectorSet) lay(out *[superSize]float32, weights []float32, s *superGroup) {
	if len(weights) == superSize {
		v.layGroups[s.which()](&out[0], &weights[0])
		return
	}
	*out = [superSize]float32{}
	for i, w := range weights {
		out[i%s.groupSize*s.lanes+i/s.groupSize] = w
	}
}

func (v *vectorSet) searchMinimums(l *groupLanes, s *superGroup, p *pattern) {
	v.minimumSearch[s.which()](&l.weights[0], &p.scale[0], p.count, &s.grid.vectors.low[0])
}

func (v *vectorSet) searchScales(l *groupLanes, s *superGroup) {
	if s.grid.kind == evenKind {
		v.groupScales16(&l.weights[0], &s.grid.reaches[0], &s.grid.vectors.low[0])
		return
	}
	for i := range s.groups {
		if l.scale[i] != 0 {
			weights, importance := s.group(i)
			l.scale[i] = v.searchScale(&s.grid.reaches, l.scale[i], s.grid, weights, importance)
		}
	}
}

func (v *vectorSet) searchFactors(l *groupLanes, s *superGroup, about *pattern, u *factorUnits, plainScales, plainMinimums []float32) {
	if s.grid.kind == tableKind {
		for i := range s.groups {
			weights, importance := s.group(i)
			which, h := weighted(importance)
			v.factorSearch[which](&l.weights[i], &about.scale[0], &u.scale, &plainScales[i], &s.grid.vectors.low[0], &weights[0], h, len(weights))
		}
		return
	}
	search := v.groupFactorsScales16
	if s.minimums {
		search = v.groupFactorsMinimums[s.which()]
	}
	search(&l.weights[0], &about.scale[0], about.count, &u.scale, &plainScales[0], &plainMinimums[0], &s.grid.vectors.low[0])
}

func (v *vectorSet) addUnitCosts(costs *lanes, d *trials, l *groupLanes, groups int, least, most float32) {
	v.unitCosts(&costs[0], &d.scale[0], &l.weights[0], groups, least, most)
}
