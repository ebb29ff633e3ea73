package kernel

import "math"

// scaleForm is how the scale of a group that stands alone is stored.
type scaleForm uint8

const (
	signedFloat16 scaleForm = iota // of either sign
	ofDtype                        // ScaleDtype
	powerOfTwo                     // E8M0: 2^-127 .. 2^127
	e4m3OfLayer                    // E4M3, times the layer's super-scale
)

// fitUntilSpecial fits groups whose scales are of no super-group until one of them is special. It
// is fitAlone with few calls, for what it has.
func (e *encoder) fitUntilSpecial() (groups int) {
	rounds := e.block.Method == RoundToNearest
	switch {
	case e.scales == e4m3OfLayer:
		return e.fitOfLayer()
	case e.scales == powerOfTwo && rounds:
		return e.steps.plainPowers(e.lo[:e.groups], e.hi[:e.groups], e.inverse[:e.groups], e.scale[:e.groups], e.grid.high)
	case e.scales == ofDtype && rounds && e.block.ScaleDtype == ScaleFloat32:
		return e.plainFloats()
	}
	return 0
}

// plainPowers gives groups the scale of the plain rule until one of them is special.
func plainPowers(lo, hi, inverse, scale []float32, high float32) (groups int) {
	last := exponentOf(high)
	for i := range hi {
		end, shift := largerEnd(lo[i], hi[i]), exponentOf(inverse[i])
		exponent := min(max(exponentOf(end)-last+shift, -127), 127-last) - shift
		if end == 0 || exponent <= -127 {
			return i
		}
		scale[i] = math.Float32frombits(uint32(exponent+127) << 23)
	}
	return len(hi)
}

// plainFloats gives groups the scale of the plain rule, as float32. Groups of it that is 0, or with
// which levels are infinite, are special.
func (e *encoder) plainFloats() (groups int) {
	hi := e.hi[:e.groups]
	lo, inverse, normal, scale := e.lo[:len(hi)], e.inverse[:len(hi)], e.normal[:len(hi)], e.scale[:len(hi)]
	high := e.grid.high
	for i := range hi {
		rounded := float32(largerEnd(lo[i], hi[i])/high) * inverse[i]
		if rounded == 0 || !isFinite(float32(rounded*high)) {
			return i
		}
		scale[i] = rounded * normal[i]
	}
	return len(hi)
}

// largerEnd is the largest magnitude of a group. It compares bits, as signed integers, since no
// processor foresees a jump that depends on which end it is; one of them is not negative.
func largerEnd(lo, hi float32) float32 {
	bits := max(int32(math.Float32bits(-lo)), int32(math.Float32bits(hi)))
	return math.Float32frombits(uint32(bits))
}

// fitAlone fits groups whose scales are of no super-group, from one of them on. It returns the
// first one whose scale is beyond what the form has, or -1.
//
// All trials are made before the first are looked at: vectors that read what was written just
// before, number by number, have to wait for it.
func (e *encoder) fitAlone(first int) (failed int) {
	for i := first; i < e.groups; i++ {
		ok := false
		if e.searches[i], ok = e.beginAlone(i); !ok {
			return i
		}
		e.errors[i] = *e.grid.noErrors()
	}
	for i := first; i < e.groups; i++ {
		if e.searches[i] {
			e.addTrialErrors(i)
			errors := &e.errors[i]
			best := e.steps.leastTrial(errors)
			if !beats(errors[best], errors[0]) {
				best = 0 // without a jump, which nothing could foresee
			}
			e.scale[i] = e.trials[i].scale[best]
		}
		e.endAlone(i)
	}
	return -1
}

// beginAlone gives a group the scale of the plain rule, and tells whether trials are made to
// search for a better one, the first of which is the plain one.
func (e *encoder) beginAlone(i int) (searches, ok bool) {
	plain, ok := e.plainScale(i)
	if !ok {
		return false, false
	}
	e.scale[i] = plain
	if e.block.Method == RoundToNearest || e.signedEnd(i) == 0 {
		return false, true
	}
	e.scaleTrials(i, plain)
	e.trials[i].set(0, plain, 0)
	return true, true
}

// endAlone counts a scale that is rounded to 0 as it is stored.
func (e *encoder) endAlone(i int) {
	if e.scale[i] != 0 {
		return
	}
	e.countUnderflow(i)
	// All decode to 0: with any scale, where the form has one and 0 is a level.
	if e.scales != signedFloat16 && e.scales != e4m3OfLayer {
		e.scale[i] = e.normal[i]
	}
}

// plainScale is a group's scale by the encoding's plain rule, for the weight of largest
// magnitude, normalized. It is false if that is beyond what the form has; superScale is
// then what was wanted.
func (e *encoder) plainScale(i int) (scale float32, ok bool) {
	end := e.signedEnd(i)
	if end == 0 {
		return 0, true
	}
	if e.scales == powerOfTwo {
		// floor(log2(largest)) less that of the largest level (OCP Microscaling 1.0, 6.3)
		exponent := exponentOf(abs(end)) - exponentOf(e.grid.high)
		return e.power(i, exponent), true
	}
	return e.storedScale(i, e.reachingScale(end))
}

// reachingScale gives the weight of largest magnitude the level of largest magnitude.
func (e *encoder) reachingScale(end float32) float32 {
	if e.scales == signedFloat16 {
		return end / e.grid.low
	}
	return abs(end) / e.grid.high
}

// scaleDtype is what the scales of groups are rounded to, if their form is of such a type.
func (e *encoder) scaleDtype() ScaleDtype {
	if e.scales == signedFloat16 {
		return ScaleFloat16
	}
	return e.block.ScaleDtype
}

// storedScale rounds a normalized scale as it is stored.
func (e *encoder) storedScale(i int, scale float32) (rounded float32, ok bool) {
	wanted := scale * e.inverse[i]
	if e.scales == e4m3OfLayer {
		factor := wanted / e.block.LayerScale
		if factor > e4m3.largest { // of a layer's scale that was not chosen for its weights
			e.superScale = wanted
			return 0, false
		}
		return e.ofLayer.level(e4m3.code(factor)) * e.normal[i], true
	}
	rounded = roundScale(wanted, e.scaleDtype())
	if isFinite(rounded) && !isFinite(rounded*e.grid.high) { // rounded up, near the largest float32
		rounded = towardZero(rounded, e.scaleDtype())
	}
	if !isFinite(rounded) || !isFinite(rounded*e.grid.high) {
		e.superScale = wanted
		return 0, false
	}
	return rounded * e.normal[i], true
}

// power is a power of two that E8M0 has, and with which all levels are finite, given by its
// normalized exponent.
func (e *encoder) power(i, exponent int) float32 {
	shift := exponentOf(e.inverse[i])
	return powerOf2(min(max(exponent+shift, -127), 127-exponentOf(e.grid.high)) - shift)
}

// exponentOf is floor(log2(x)) of a normal number.
func exponentOf(x float32) int { return int(math.Float32bits(x)>>23&0xff) - 127 }

// scaleTrials makes all trials but the first: scales about the plain one.
func (e *encoder) scaleTrials(i int, plain float32) {
	t := &e.trials[i]
	switch e.scales {
	case powerOfTwo:
		var about [3]float32
		for k := range about {
			about[k] = e.power(i, exponentOf(plain)+k-1)
		}
		for lane := 1; lane < trialLanes; lane++ {
			t.set(lane, about[lane%len(about)], 0)
		}
	case e4m3OfLayer:
		for lane, level := range e.ofLayer.about(plain, e.normal[i]) {
			t.set(lane, level*e.normal[i], 0)
		}
	default:
		e.continuousTrials(i, plain)
	}
}

// continuousTrials makes trials of scales of any value.
func (e *encoder) continuousTrials(i int, plain float32) {
	best := plain
	if plain == 0 { // rounded to 0; what is larger is none too few
		best = e.reachingScale(e.signedEnd(i))
	}
	best = e.searchScale(i, best)
	// Subnormal scales are coarse: nearer ones than this would be the same.
	unit := e.scaleDtype().smallest() * e.normal[i]
	for lane := 1; lane < e.grid.trialLanes(); lane++ {
		scale, ok := e.storedScale(i, e.aboutScale(best, unit, lane))
		if !ok || scale == 0 || scale < 0 && e.grid.kind == floatKind { // which has both signs of all levels
			scale = plain
		}
		e.trials[i].set(lane, scale, 0)
	}
}

// aboutScale is one of the scales that are tried about the best: by parts of it, or, if those
// are less than a unit, by units.
func (e *encoder) aboutScale(best, unit float32, lane int) float32 {
	step, factor := float32(fineStep), 1+float32(fineStep*float32(lane-tableLanes/2))
	if e.grid.kind == floatKind {
		// The levels of floating point are the same an octave up.
		step, factor = octave[1]-1, octave[lane]
	}
	if abs(best)*step < unit {
		return best + float32(unit*float32(lane-e.grid.trialLanes()/2))
	}
	return best * factor
}

// fineStep is between two scales that are tried about the best.
const fineStep = 0.008

// octave is 2^(lane/trialLanes).
var octave = func() (factors lanes) {
	for lane := range factors {
		factors[lane] = float32(math.Exp2(float64(lane) / trialLanes))
	}
	return factors
}()
