package kernel

// BlockSize is how many rows, and columns, the blocks of a matrix have that share a scale.
const BlockSize = 128

// SharedScale is the one scale of weights that are too many to be looked at by one: their
// ends are found first, then, for a search, the errors of trials, each in parts. Blocks that
// are given it have no scale of their own to choose.
type SharedScale struct {
	// Searches tells whether TrialErrors of all parts are wanted.
	Searches bool
	// Underflows tells whether it is rounded to 0, as it is stored; of a search, when that ends.
	Underflows bool

	scale, normal, inverse float32 // normalized, as of encoder
	trials                 trials
}

// TrialErrors are the sums of parts of what the trials of a scale leave.
type TrialErrors [trialLanes]float64

// Add counts another part, always in the same order.
func (t *TrialErrors) Add(part TrialErrors) {
	for lane, e := range part {
		t[lane] += e
	}
}

// ShareScale chooses the scale of weights that span lo .. hi by the plain rule of FP8.
func ShareScale(lo, hi float32, f Format) (*SharedScale, Fault) {
	e := encoders.Get().(*encoder)
	defer encoders.Put(e)
	e.block, e.Description = &Block{Format: f}, f.Encoding.Describe()
	e.groups, e.underflows = 1, 0
	e.lo[0], e.hi[0] = lo, hi
	normalizeEnds(e.lo[:1], e.hi[:1], e.normal[:1], e.inverse[:1]) // the encoder may be new, and have no steps
	searches, ok := e.beginAlone(0)
	if !ok {
		return nil, Fault{Kind: ScaleRange, Value: e.superScale}
	}
	if !searches {
		e.endAlone(0)
	}
	return &SharedScale{searches, e.underflows > 0, e.scale[0], e.normal[0], e.inverse[0], e.trials[0]}, Fault{}
}

// Stored is the scale as it is stored.
func (s *SharedScale) Stored() float32 { return s.scale * s.inverse }

// Choose ends the search.
func (s *SharedScale) Choose(sums TrialErrors) {
	var errors lanes
	for lane, sum := range sums {
		errors[lane] = float32(sum)
	}
	if least := leastTrial(&errors); beats(errors[least], errors[0]) {
		s.scale = s.trials.scale[least]
	}
	if s.scale == 0 { // as of endAlone
		s.Underflows, s.scale = true, s.normal
	}
}

// trialErrorsOf are those of a block's part.
func trialErrorsOf(b *Block, steps *encoderSteps) (sums TrialErrors) {
	e := encoders.Get().(*encoder)
	defer encoders.Put(e)
	e.begin(b, steps)
	e.trials[0] = b.Shared.trials
	for row := range b.Rows {
		e.at, e.n, e.groups = b.layout().row(row), b.Columns, 1
		e.takeShared()
		e.fillTiles()
		e.errors[0] = *e.grid.noErrors()
		e.addTrialErrors(0)
		var part TrialErrors
		for lane, errors := range e.errors[0] {
			part[lane] = float64(errors)
		}
		sums.Add(part)
	}
	return sums
}

// takeShared has all groups at hand take the scale that their block is given.
func (e *encoder) takeShared() {
	s := e.block.Shared
	for i := range e.groups {
		e.normal[i], e.inverse[i], e.scale[i], e.minimum[i] = s.normal, s.inverse, s.scale, 0
	}
}
