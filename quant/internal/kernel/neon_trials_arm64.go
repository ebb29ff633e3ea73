//go:build goexperiment.simd && go1.27

package kernel

import "unsafe"

// coders are those of 8 trials.
func coders(scale, minimum pair) (inverse, offset pair) {
	inverse = both(fill(1)).div(scale)
	inverse.low = inverse.low.Masked(inverse.low.Abs().Less(fill(infinity)))
	inverse.high = inverse.high.Masked(inverse.high.Abs().Less(fill(infinity)))
	return inverse, minimum.mul(inverse)
}

// halves is how many times 8 trials there are.
func (k gridKind) halves() int {
	if k == tableKind {
		return tableLanes / 8
	}
	return trialLanes / 8
}

func trialErrorsNEON(errors, pattern, grid, weights, importance *float32, n int, kind gridKind) {
	g, t := (*gridVectors)(unsafe.Pointer(grid)), (*trials)(unsafe.Pointer(pattern))
	for half := range kind.halves() {
		trialErrors8(g, loadPair(errors, 8*half), loadPair(&t.scale[0], 8*half), weights, importance, n, kind).store(errors, 8*half)
	}
}

func trialErrorsKind(kind gridKind) func(errors, trials, grid, weights, importance *float32, n int) {
	return func(errors, trials, grid, weights, importance *float32, n int) {
		trialErrorsNEON(errors, trials, grid, weights, importance, n, kind)
	}
}

// levelSearchNEON is searchLevels.
func levelSearchNEON(levels, grid, weights, importance *float32, n int, normal float32) (lane int) {
	g := (*gridVectors)(unsafe.Pointer(grid))
	var errors lanes
	for lane := 0; lane < trialLanes; lane += 8 {
		scale := loadPair(levels, lane)
		if lane == 0 {
			scale.low = scale.low.SetElem(0, (*lanes)(unsafe.Pointer(levels))[trialLanes/2])
		}
		scale = scale.mul(both(fill(normal)))
		trialErrors8(g, pair{}, scale, weights, importance, n, floatKind).store(&errors[0], lane)
	}
	if least := leastTrial(&errors); beats(errors[least], errors[0]) {
		return least
	}
	return trialLanes / 2
}

// scaleSearchNEON is searchScale.
func scaleSearchNEON(pattern, grid, weights, importance *float32, n int, scale float32, kind gridKind) (best float32) {
	g := (*gridVectors)(unsafe.Pointer(grid))
	var fits, gains lanes
	for lane := 0; lane < trialLanes; lane += 8 {
		inverse, _ := coders(both(fill(scale)).mul(loadPair(pattern, lane)), pair{})
		levelLevel, levelWeight := trialSums8(g, inverse, weights, importance, n, kind)
		fitted := levelWeight.div(levelLevel)
		fitted.store(&fits[0], lane)
		fitted.mul(levelWeight).store(&gains[0], lane)
	}
	best, most := scale, float32(0)
	for lane, gain := range gains {
		if gain > most {
			best, most = fits[lane], gain
		}
	}
	return best
}

func scaleSearchKind(kind gridKind) func(pattern, grid, weights, importance *float32, n int, scale float32) float32 {
	return func(pattern, grid, weights, importance *float32, n int, scale float32) float32 {
		return scaleSearchNEON(pattern, grid, weights, importance, n, scale, kind)
	}
}

// factorSearchNEON is searchFactors for one group of a table's levels.
func factorSearchNEON(group, pattern, unit, plain, grid, weights, importance *float32, n int) {
	about := (*trials)(unsafe.Pointer(pattern))
	u, g := (*factorUnits)(unsafe.Pointer(unit)), (*gridVectors)(unsafe.Pointer(grid))
	l := (*groupLanes)(unsafe.Pointer(group)) // whose first lane is the group's
	least, most := both(fill(u.least)), both(fill(u.most))
	factor := multiplesOf(both(fill(l.scale[0])), both(fill(u.perScale)), least, most)
	scale := both(fill(u.scale)).mul(factor.add(loadPair(&about.scale[0], 0)).max(least).min(most))
	scale.low = scale.low.SetElem(0, *plain)
	var tried lanes
	errors := fewErrors
	scale.store(&tried[0], 0)
	trialErrors8(g, pair{}, scale, weights, importance, n, tableKind).store(&errors[0], 0)
	best := leastTrial(&errors)
	l.scale[0], l.error[0], l.plainError[0] = tried[best], errors[best], errors[0]
}
