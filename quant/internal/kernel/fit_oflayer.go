package kernel

// fitOfLayer fits groups whose scales are of E4M3, times the layer's super-scale, until one of
// them is special. It is fitAlone for many small groups, with few calls.
func (e *encoder) fitOfLayer() (groups int) {
	n := e.groups
	groups = e.steps.plainOfLayer(e.lo[:n], e.hi[:n], e.normal[:n], e.inverse[:n], e.scale[:n], e.grid.high, e.block.LayerScale)
	if e.block.Method == RoundToNearest {
		return groups
	}
	for i := range groups {
		levels := e.ofLayer.about(e.scale[i], e.normal[i])
		weights, importance := e.part(e.span(i))
		e.scale[i] = levels[e.steps.searchLevels(levels, e.normal[i], e.grid, weights, importance)] * e.normal[i]
		e.endAlone(i)
	}
	return groups
}

// searchLevels gives the lane of the level that is the scale of least error for a group, once it
// is normalized. It is that in the middle, the plain one, if none beats it; that of the first lane
// is not tried.
func searchLevels(levels *lanes, normal float32, g *grid, weights, importance []float32) (lane int) {
	var t trials
	for lane, level := range levels {
		t.scale[lane] = level * normal
	}
	t.scale[0] = t.scale[trialLanes/2]
	errors := *g.noErrors()
	addTrialErrors(&errors, g, &t, weights, importance)
	if least := leastTrial(&errors); beats(errors[least], errors[0]) {
		return least
	}
	return trialLanes / 2
}

// plainOfLayer gives groups the scale of the plain rule until one of them is special. It is
// plainScale without calls.
func plainOfLayer(lo, hi, normal, inverse, scale []float32, high, layerScale float32) (groups int) {
	format := *e4m3
	for i := range hi {
		factor := float32(float32(largerEnd(lo[i], hi[i])/high)*inverse[i]) / layerScale
		rounded := float32(format.roundPositive(factor) * layerScale)
		if rounded == 0 || factor > format.largest || !isFinite(float32(rounded*high)) {
			return i
		}
		scale[i] = rounded * normal[i]
	}
	return len(hi)
}

// mostCode is the code of the largest number of E4M3.
const mostCode = 0x7e

// layerLevels are what scales of E4M3 decode to, times the super-scale of a layer.
type layerLevels struct {
	scale float32 // of the layer
	// Half as many as there are trials, then the levels of all codes, then as many again. Codes
	// beyond the smallest level and the largest stand for these. Where a level times the largest
	// of the weights' levels would be infinite, the largest stands with which it is not.
	padded [trialLanes/2 + mostCode + trialLanes/2]float32
}

// take makes the levels of a layer's scale, unless it has them already.
func (l *layerLevels) take(scale, high float32) {
	if l.scale == scale {
		return
	}
	l.scale = scale
	before := float32(0)
	for i := range l.padded {
		code := min(max(i-trialLanes/2, 1), mostCode)
		if level := e4m3Levels[code] * scale; i == 0 || isFinite(level*high) {
			before = level
		}
		l.padded[i] = before
	}
}

// level is that of a code.
func (l *layerLevels) level(code uint8) float32 {
	if code == 0 {
		return 0
	}
	return l.padded[code+trialLanes/2]
}

// about are the levels about that of a normalized scale, which is in the middle.
func (l *layerLevels) about(scale, normal float32) *lanes {
	code := e4m3.codeOf(e4m3.roundPositive(scale / (l.scale * normal)))
	return (*lanes)(l.padded[code:][:trialLanes])
}
