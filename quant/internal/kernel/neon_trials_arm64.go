//go:build goexperiment.simd && go1.27

package kernel

import "unsafe"

// coders are those of 8 trials.
func coders(scale, minimum pair) (inverse, offset pair) {
	inverse = both(fill(1)).div(scale)
	inverse.low = inverse.low.Masked(scale.low.NotEqual(floats{}))
	inverse.high = inverse.high.Masked(scale.high.NotEqual(floats{}))
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
		scale, minimum := loadPair(&t.scale[0], 8*half), loadPair(&t.minimum[0], 8*half)
		trialErrors8(g, loadPair(errors, 8*half), scale, minimum, weights, importance, n, kind).store(errors, 8*half)
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
		trialErrors8(g, pair{}, scale, pair{}, weights, importance, n, floatKind).store(&errors[0], lane)
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
		_, levelLevel, levelWeight := trialSums8(g, inverse, pair{}, weights, importance, n, kind)
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

// minimumSearchNEON is searchMinimum.
func minimumSearchNEON(found, pattern, grid, weights, importance *float32, n int, count, weight, square, inverse float32) {
	about, t := (*searchedMinimum)(unsafe.Pointer(found)), (*trials)(unsafe.Pointer(pattern))
	g := (*gridVectors)(unsafe.Pointer(grid))
	scales, inverses, weightSum := both(fill(about.scale)), both(fill(inverse)), both(fill(weight))
	var scaleOf, minimumOf, levelOf, costOf, promiseOf lanes
	for lane := 0; lane < trialLanes; lane += 8 {
		minimum := both(fill(about.minimum)).add(scales.mul(loadPair(&t.minimum[0], lane))).max(pair{})
		factor, offset := coders(scales.mul(loadPair(&t.scale[0], lane)), minimum)
		level, levelLevel, levelWeight := trialSums8(g, factor, offset, weights, importance, n, evenKind)
		cost := levelLevel.sub(level.mul(level).mul(inverses))
		scale := levelWeight.sub(level.mul(weightSum).mul(inverses)).div(cost)
		minimum = scale.mul(level).sub(weightSum).mul(inverses)
		without := levelWeight.div(levelLevel)
		scale.low = scale.low.IfElse(minimum.low.Greater(floats{}), without.low)
		scale.high = scale.high.IfElse(minimum.high.Greater(floats{}), without.high)
		minimum = pair{positive(minimum.low), positive(minimum.high)}
		promise := both(fill(square)).sub(scale.mul(levelWeight)).add(minimum.mul(weightSum))
		scale.store(&scaleOf[0], lane)
		minimum.store(&minimumOf[0], lane)
		level.store(&levelOf[0], lane)
		cost.store(&costOf[0], lane)
		promise.store(&promiseOf[0], lane)
	}
	best, least := -1, infinity
	for lane, promise := range promiseOf {
		if scaleOf[lane] > 0 && costOf[lane] > 0 && promise < least {
			best, least = lane, promise
		}
	}
	if best >= 0 {
		*about = searchedMinimum{
			scale: scaleOf[best], minimum: minimumOf[best], slope: float32(levelOf[best] * inverse), scaleCost: costOf[best], weight: count,
		}
	}
}

// multiplesOf are the nearest multiples of least .. most.
func multiplesOf(v, per, least, most pair) pair { return v.mul(per).max(least).min(most).round() }

// factorSearchNEON is searchFactors.
func factorSearchNEON(found, pattern, unit, plain, grid, weights, importance *float32, n int, kind gridKind) {
	f, about := (*searchedMinimum)(unsafe.Pointer(found)), (*trials)(unsafe.Pointer(pattern))
	u, p, g := (*factorUnits)(unsafe.Pointer(unit)), (*units)(unsafe.Pointer(plain)), (*gridVectors)(unsafe.Pointer(grid))
	least, most := both(fill(u.least)), both(fill(u.most))
	factor := multiplesOf(both(fill(f.scale)), both(fill(u.perScale)), least, most)
	var t trials
	errors := allErrors
	if kind == tableKind {
		errors = fewErrors
	}
	for half := range kind.halves() {
		lane := 8 * half
		scale := both(fill(u.scale)).mul(factor.add(loadPair(&about.scale[0], lane)).max(least).min(most))
		minimum := both(fill(f.minimum)).add(scale.sub(both(fill(f.scale))).mul(both(fill(f.slope))))
		multiple := multiplesOf(minimum, both(fill(u.perMinimum)), pair{}, most)
		minimum = both(fill(u.minimum)).mul(multiple.add(loadPair(&about.minimum[0], lane)).max(pair{}).min(most))
		if half == 0 {
			scale.low, minimum.low = scale.low.SetElem(0, p.scale), minimum.low.SetElem(0, p.minimum)
		}
		scale.store(&t.scale[0], lane)
		minimum.store(&t.minimum[0], lane)
		trialErrors8(g, pair{}, scale, minimum, weights, importance, n, kind).store(&errors[0], lane)
	}
	best := leastTrial(&errors)
	f.scale, f.minimum, f.error, f.plainError = t.scale[best], t.minimum[best], errors[best], errors[0]
}

func factorSearchKind(kind gridKind) func(found, pattern, unit, plain, grid, weights, importance *float32, n int) {
	return func(found, pattern, unit, plain, grid, weights, importance *float32, n int) {
		factorSearchNEON(found, pattern, unit, plain, grid, weights, importance, n, kind)
	}
}

// unitCostsNEON is addUnitCosts.
func unitCostsNEON(costs, tried, group *float32, least, most float32) {
	g, t := (*searchedMinimum)(unsafe.Pointer(group)), (*trials)(unsafe.Pointer(tried))
	lowest, highest := both(fill(least)), both(fill(most))
	for lane := 0; lane < trialLanes; lane += 8 {
		d, m := loadPair(&t.scale[0], lane), loadPair(&t.minimum[0], lane)
		perScale, _ := coders(d, pair{})
		perMinimum, _ := coders(m, pair{})
		factor := multiplesOf(both(fill(g.scale)), perScale, lowest, highest)
		cost := both(fill(infinity))
		for _, step := range [...]float32{-1, 0, 1} {
			scale := d.mul(factor.add(both(fill(step))).max(lowest).min(highest)).sub(both(fill(g.scale)))
			minimum := both(fill(g.minimum)).add(scale.mul(both(fill(g.slope))))
			rest := m.mul(multiplesOf(minimum, perMinimum, pair{}, highest)).sub(minimum)
			cost = cost.min(scale.mul(scale).mul(both(fill(g.scaleCost))).add(rest.mul(rest).mul(both(fill(g.weight)))))
		}
		addTo(costs, lane, cost.low, cost.high)
	}
}
