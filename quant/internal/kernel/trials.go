package kernel

// trialLanes is how many scales of a group are tried at a time. Each is a lane of
// vectors, which adds up its sums in the order of the weights, whatever a vector's width.
const trialLanes = 16

// tableLanes is how many are tried of a table, whose levels take longer to find.
const tableLanes = trialLanes / 2

// lanes hold a number for each trial.
type lanes [trialLanes]float32

// trials are scales and minimums to try: a weight gets the level nearest to
// (weight + minimum)/scale, which decodes to level*scale - minimum. In a pattern, they are
// told by parts and steps of another scale. Assembly relies on the order.
type trials struct{ scale, minimum lanes }

// set makes one of the trials.
func (t *trials) set(lane int, scale, minimum float32) {
	t.scale[lane], t.minimum[lane] = scale, minimum
}

// pattern are the first count trials; count is a multiple of 4.
type pattern struct {
	trials
	count int
}

// try adds a trial.
func (p *pattern) try(scale, minimum float32) {
	p.set(p.count, scale, minimum)
	p.count++
}

// coder gives inverse and offset, with which a weight w gets the level nearest to
// w*inverse + offset. A scale of 0, or one whose inverse is beyond float32, decodes all to about
// -minimum; infinite ones would make levels that are NaN, which not all processors compare alike.
func coder(scale, minimum float32) (inverse, offset float32) {
	inverse = 1 / scale
	if !isFinite(inverse) {
		return 0, 0
	}
	return inverse, float32(minimum * inverse)
}

// makeCoders is coder for groups.
func makeCoders(scale, minimum, inverse, offset []float32) {
	for i := range inverse {
		inverse[i], offset[i] = coder(scale[i], minimum[i])
	}
}

// encoderSteps are the loops of fitting and coding a group. Importance has as many numbers
// as the weights, or is nil: all weigh the same.
type encoderSteps struct {
	// ranges finds the ends of groups of a multiple of 8 weights, or returns false.
	ranges func(weights []byte, t ElementType, lo, hi []float32) bool
	// normalizeEnds multiplies the ends of groups by powers of two, which it gives with their
	// reciprocals.
	normalizeEnds func(lo, hi, normal, inverse []float32)
	// plainOfLayer gives groups the scale of the plain rule until one of them is special.
	plainOfLayer func(lo, hi, normal, inverse, scale []float32, high, layerScale float32) (groups int)
	// plainPowers does so for scales that are powers of two. Groups of zeros are special.
	plainPowers func(lo, hi, inverse, scale []float32, high float32) (groups int)
	// makeCoders gives groups what finds their codes.
	makeCoders func(scale, minimum, inverse, offset []float32)
	// normalize widens the weights of groups of the same length, of a multiple of 8 or alone,
	// and multiplies them by a factor a group.
	normalize func(out []float32, weights []byte, t ElementType, factors []float32)
	// plainScales gives groups of super-groups their scales, and minimums, by the plain rule,
	// without rounding.
	plainScales func(e *encoder)
	// takeMultiples replaces values by the multiples of a unit nearest to them, of a factor of
	// least .. most.
	takeMultiples func(values []float32, unit, least, most float32)
	// largest is the number of largest magnitude, the first one of several.
	largest func(numbers []float32) float32
	// roundUnits gives parts of a unit that is needed, as they are stored and normalized.
	roundUnits func(stored, tried, parts *lanes, needed, inverse, normal float32)
	// takeGroups makes what searches of a super-group need, all of which follow it.
	takeGroups func(s *superGroup)
	// searchMinimums replaces what was found for groups by the scale and minimum of least error
	// for the codes of the trial, about what was found, that promises the least.
	searchMinimums func(s *superGroup, p *pattern)
	// searchScales does so without minimums.
	searchScales func(s *superGroup)
	// searchScale does so for one group, for trials that are parts of scale.
	searchScale func(pattern *lanes, scale float32, g *grid, weights, importance []float32) float32
	// addUnitCosts adds what the units that are tried cost groups.
	addUnitCosts func(s *superGroup)
	// searchFactors replaces the scales and minimums of groups by the best multiples of units
	// about them, and tells their error, and that of the plain ones.
	searchFactors func(s *superGroup, about *pattern)
	// addTrialErrors adds to the squared errors of all trials, of tables of tableLanes.
	addTrialErrors func(errors *lanes, g *grid, t *trials, weights, importance []float32)
	// searchLevels gives the lane of the level that is the scale of least error for a group of a
	// grid of floating point, or that in the middle.
	searchLevels func(levels *lanes, normal float32, g *grid, weights, importance []float32) (lane int)
	// leastTrial gives the lane of the least error of all but the first.
	leastTrial func(errors *lanes) int
	// encode gives the codes of such groups. tile is what it may use for as many weights.
	encode func(codes []uint8, tile []float32, g *grid, weights []byte, t ElementType, normal, inverse, offset []float32)
	// pack writes codes.
	pack func(packed []byte, codes []uint8, bitWidth int)
	// decode decodes the codes of such groups, addSums adds the errors of weights that begin at
	// a multiple of sumLanes columns.
	decode  func(weights []float32, codes []uint8, levels, scales, zeroPoints []float32)
	addSums func(sums *laneSums, weights, decoded []float32)
}

var scalarSteps = &encoderSteps{
	func([]byte, ElementType, []float32, []float32) bool { return false }, normalizeEnds, plainOfLayer, plainPowers, makeCoders, normalize,
	plainScales, takeMultiples, largest, roundUnits, takeMoments, searchMinimums, searchScales, searchScale, addUnitCosts, searchFactors, addTrialErrors, searchLevels, leastTrial, encode, pack,
	decodeGroups, (*laneSums).add,
}

func normalize(out []float32, weights []byte, t ElementType, factors []float32) {
	load(out, weights, t)
	size := len(out) / len(factors)
	for i, factor := range factors {
		for k := range out[i*size : (i+1)*size] {
			out[i*size+k] *= factor
		}
	}
}

// weigh multiplies by a weight's importance.
func weigh(x float32, importance []float32, i int) float32 {
	if importance == nil {
		return x
	}
	return float32(importance[i] * x)
}

// trialSums are the sums of a trial's levels, of their squares, and of their products with
// the weights, weighted by importance.
type trialSums struct{ level, levelLevel, levelWeight float32 }

func sumTrial(g *grid, scale, minimum float32, weights, importance []float32) (s trialSums) {
	inverse, offset := coder(scale, minimum)
	for i, w := range weights {
		level := g.nearest(fusedMultiplyAdd(w, inverse, offset))
		weighted := weigh(level, importance, i)
		s.level += weighted
		s.levelLevel = fusedMultiplyAdd(weighted, level, s.levelLevel)
		s.levelWeight = fusedMultiplyAdd(weighted, w, s.levelWeight)
	}
	return s
}

func addTrialErrors(errors *lanes, g *grid, t *trials, weights, importance []float32) {
	for lane := range g.trialLanes() {
		errors[lane] = addTrialError(errors[lane], g, units{t.scale[lane], t.minimum[lane]}, weights, importance)
	}
}

// addTrialError adds to the squared error of a trial.
func addTrialError(total float32, g *grid, tried units, weights, importance []float32) float32 {
	inverse, offset := coder(tried.scale, tried.minimum)
	for i, w := range weights {
		level := g.nearest(fusedMultiplyAdd(w, inverse, offset))
		rest := fusedMultiplyAdd(-level, tried.scale, w+tried.minimum)
		total = fusedMultiplyAdd(weigh(rest, importance, i), rest, total)
	}
	return total
}

// trialLanes is how many trials addTrialErrors has.
func (g *grid) trialLanes() int {
	if g.kind == tableKind {
		return tableLanes
	}
	return trialLanes
}

// noErrors are the errors of trials before any weight: Inf for those that are not tried.
func (g *grid) noErrors() *lanes {
	if g.kind == tableKind {
		return &fewErrors
	}
	return &allErrors
}

var allErrors, fewErrors = lanes{}, func() (l lanes) {
	for lane := tableLanes; lane < trialLanes; lane++ {
		l[lane] = infinity
	}
	return l
}()

func leastTrial(errors *lanes) int {
	least := 1
	for lane := 2; lane < trialLanes; lane++ {
		if errors[lane] < errors[least] {
			least = lane
		}
	}
	return least
}

func encode(codes []uint8, tile []float32, g *grid, weights []byte, t ElementType, normal, inverse, offset []float32) {
	size := len(codes) / len(inverse)
	normalize(tile, weights, t, normal)
	for i, w := range tile {
		codes[i] = g.code(float32(w*inverse[i/size]) + offset[i/size])
	}
}

// beats tells whether an error is less than round-to-nearest's beyond what rounding may
// have hidden in the sums.
func beats(searched, plain float32) bool { return searched < plain-float32(plain*leastGain) }
