package kernel

// trialLanes is how many scales of a group are tried at a time. Each is a lane of
// vectors, which adds up its sums in the order of the weights, whatever a vector's width.
const trialLanes = 16

// lanes hold a number for each trial.
type lanes [trialLanes]float32

// trials are scales and minimums to try: a weight w gets the level nearest to
// w*inverse + offset, which decodes to level*scale - minimum. Assembly relies on the order.
type trials struct{ inverse, offset, scale, minimum lanes }

// set makes one of the trials.
func (t *trials) set(lane int, scale, minimum float32) {
	t.scale[lane], t.minimum[lane] = scale, minimum
	t.inverse[lane], t.offset[lane] = coder(scale, minimum)
}

// coder gives inverse and offset. A scale of 0 decodes all to -minimum.
func coder(scale, minimum float32) (inverse, offset float32) {
	if scale == 0 {
		return 0, 0
	}
	inverse = 1 / scale
	return inverse, float32(minimum * inverse)
}

// trialSums are sums of each trial's levels, of their squares, and of their products with
// the weights, weighted by importance. Assembly relies on the order.
type trialSums struct{ level, levelLevel, levelWeight lanes }

// trialSteps are the loops over weights that fitting needs, with their importance.
type trialSteps struct {
	// sums adds to the sums of all trials.
	sums func(sums *trialSums, g *grid, t *trials, weights, importance []float32)
	// errors adds to the squared errors of all trials.
	errors func(errors *lanes, g *grid, t *trials, weights, importance []float32)
}

var scalarSteps = trialSteps{addTrialSums, addTrialErrors}

func addTrialSums(s *trialSums, g *grid, t *trials, weights, importance []float32) {
	for i, w := range weights {
		for lane := range trialLanes {
			level := g.nearest(float32(w*t.inverse[lane]) + t.offset[lane])
			weighted := float32(importance[i] * level)
			s.level[lane] += weighted
			s.levelLevel[lane] += float32(weighted * level)
			s.levelWeight[lane] += float32(weighted * w)
		}
	}
}

func addTrialErrors(errors *lanes, g *grid, t *trials, weights, importance []float32) {
	for i, w := range weights {
		for lane := range trialLanes {
			level := g.nearest(float32(w*t.inverse[lane]) + t.offset[lane])
			rest := w - (float32(level*t.scale[lane]) - t.minimum[lane])
			errors[lane] += float32(float32(importance[i]*rest) * rest)
		}
	}
}

// leastGain applies here, too: least gives the lane of the least error, or the first lane
// unless another gains enough beyond doubt.
func (l *lanes) least() (least int) {
	bound := l[0] - float32(l[0]*leastGain)
	for lane, e := range l {
		if e < bound {
			least, bound = lane, e
		}
	}
	return least
}
