//go:build goexperiment.simd && go1.27

package kernel

import "unsafe"

// A lane has a group of a super-group, as in groupLanes. Loops look at 8 at a time, the first of
// which is first.

// ofSizes is a function for each number of groups of a super-group.
func ofSizes[F any](of func(groups int) F) [superSizes]F { return [superSizes]F{of(8), of(16)} }

func layGroupsOf(groups int) func(out, weights *float32) {
	return func(out, weights *float32) {
		size := superSize / groups
		for group := range groups {
			for i := range size {
				*floatAt(out, i*groups+group) = *floatAt(weights, group*size+i)
			}
		}
	}
}

func takeMomentsOf(groups int) func(l *float32) {
	return func(lanes *float32) {
		l := (*groupLanes)(unsafe.Pointer(lanes))
		for first := 0; first < groups; first += 8 {
			count, weight, square := groupMoments(&l.laid[0], &l.laidImportance[0], first, groups)
			count.store(&l.count[0], first)
			weight.store(&l.weight[0], first)
			square.store(&l.square[0], first)
		}
	}
}

func groupMoments(weights, importance *float32, first, groups int) (count, weight, square pair) {
	for at := first; at < superSize; at += groups {
		w, h := loadPair(weights, at), loadPair(importance, at)
		weighted := w.mul(h)
		count, weight, square = count.add(h), weight.add(weighted), square.add(weighted.mul(w))
	}
	return count, weight, square
}

// groupSums are the trialSums of a trial of each group.
func groupSums(g *gridVectors, inverse, offset pair, weights, importance *float32, first, groups int) (level, levelLevel, levelWeight pair) {
	low, high := both(loadFloats(&g.low[0], 0)), both(loadFloats(&g.high[0], 0))
	for at := first; at < superSize; at += groups {
		w := loadPair(weights, at)
		q := w.mulAdd(inverse, offset).max(low).min(high).round()
		weighted := loadPair(importance, at).mul(q)
		level, levelLevel, levelWeight = level.add(weighted), weighted.mulAdd(q, levelLevel), weighted.mulAdd(w, levelWeight)
	}
	return level, levelLevel, levelWeight
}

// groupErrors are the squared errors of a trial of each group.
func groupErrors(g *gridVectors, scale, minimum, inverse, offset pair, weights, importance *float32, first, groups int) (total pair) {
	low, high, negative := both(loadFloats(&g.low[0], 0)), both(loadFloats(&g.high[0], 0)), pair{}.sub(scale)
	for at := first; at < superSize; at += groups {
		w := loadPair(weights, at)
		rest := w.mulAdd(inverse, offset).max(low).min(high).round().mulAdd(negative, w.add(minimum))
		total = loadPair(importance, at).mul(rest).mulAdd(rest, total)
	}
	return total
}

// whereLess is v in lanes where one number is less than another, else w.
func whereLess(one, other, v, w pair) pair {
	return pair{v.low.IfElse(other.low.Greater(one.low), w.low), v.high.IfElse(other.high.Greater(one.high), w.high)}
}

// minimumSearchOf is searchMinimums.
func minimumSearchOf(groups int) func(lanes, pattern *float32, count int, grid *float32) {
	return func(lanes, pattern *float32, count int, grid *float32) {
		l, t := (*groupLanes)(unsafe.Pointer(lanes)), (*trials)(unsafe.Pointer(pattern))
		for first := 0; first < groups; first += 8 {
			minimumSearch8(l, t, count, (*gridVectors)(unsafe.Pointer(grid)), first, groups)
		}
	}
}

func minimumSearch8(l *groupLanes, t *trials, count int, g *gridVectors, first, groups int) {
	about, minimums := loadPair(&l.scale[0], first), loadPair(&l.minimum[0], first)
	counts, weight, square := loadPair(&l.count[0], first), loadPair(&l.weight[0], first), loadPair(&l.square[0], first)
	inverse, least := both(fill(1)).div(counts), both(fill(infinity))
	var bestScale, bestMinimum, bestLevel, bestCost pair
	for lane := range count {
		tried := about.mul(both(fill(t.scale[lane])))
		factor, offset := coders(tried, minimums.add(about.mul(both(fill(t.minimum[lane])))).max(pair{}))
		level, levelLevel, levelWeight := groupSums(g, factor, offset, &l.laid[0], &l.laidImportance[0], first, groups)
		cost := levelLevel.sub(level.mul(level).mul(inverse))
		gain := levelWeight.sub(level.mul(weight).mul(inverse))
		without, with := weight.mul(cost), gain.mul(level)
		scale := whereLess(without, with, gain, levelWeight).div(whereLess(without, with, cost, levelLevel))
		minimum := whereLess(without, with, scale.mul(level).sub(weight).mul(inverse).max(pair{}), pair{})
		promise := square.sub(scale.mul(levelWeight)).add(minimum.mul(weight))
		promise = whereLess(pair{}, cost, whereLess(pair{}, scale, promise, both(fill(infinity))), both(fill(infinity)))
		bestScale, bestMinimum = whereLess(promise, least, scale, bestScale), whereLess(promise, least, minimum, bestMinimum)
		bestLevel, bestCost = whereLess(promise, least, level, bestLevel), whereLess(promise, least, cost, bestCost)
		least = whereLess(promise, least, promise, least)
	}
	for _, found := range [...]struct {
		v  pair
		to *lanes
	}{{bestScale, &l.scale}, {bestMinimum, &l.minimum}, {bestLevel.mul(inverse), &l.slope}, {bestCost, &l.scaleCost}, {counts, &l.minimumCost}} {
		whereLess(least, both(fill(infinity)), found.v, loadPair(&found.to[0], first)).store(&found.to[0], first)
	}
}

// groupScalesNEON is searchScales, for 16 groups.
func groupScalesNEON(lanes, pattern, grid *float32) {
	l, g := (*groupLanes)(unsafe.Pointer(lanes)), (*gridVectors)(unsafe.Pointer(grid))
	for first := 0; first < 16; first += 8 {
		about, most := loadPair(&l.scale[0], first), pair{}
		best := about
		for lane := range trialLanes {
			inverse, _ := coders(about.mul(both(repeat(pattern, lane))), pair{})
			_, levelLevel, levelWeight := groupSums(g, inverse, pair{}, &l.laid[0], &l.laidImportance[0], first, 16)
			fitted := levelWeight.div(levelLevel)
			gain := fitted.mul(levelWeight)
			best, most = whereLess(most, gain, fitted, best), whereLess(most, gain, gain, most)
		}
		best.store(&l.scale[0], first)
	}
}

// groupFactorsOf is searchFactors.
func groupFactorsOf(groups int) func(lanes, pattern *float32, count int, units, plainScales, plainMinimums, grid *float32) {
	return func(lanes, pattern *float32, count int, unit, plainScales, plainMinimums, grid *float32) {
		l, t := (*groupLanes)(unsafe.Pointer(lanes)), (*trials)(unsafe.Pointer(pattern))
		u, g := (*factorUnits)(unsafe.Pointer(unit)), (*gridVectors)(unsafe.Pointer(grid))
		for first := 0; first < groups; first += 8 {
			factorSearch8(l, t, count, u, g, pairs{loadPair(plainScales, first), loadPair(plainMinimums, first)}, first, groups)
		}
	}
}

// pairs are scales and minimums.
type pairs struct{ scale, minimum pair }

func factorSearch8(l *groupLanes, about *trials, count int, u *factorUnits, g *gridVectors, plain pairs, first, groups int) {
	least, most := both(fill(u.least)), both(fill(u.most))
	scales, minimums, slope := loadPair(&l.scale[0], first), loadPair(&l.minimum[0], first), loadPair(&l.slope[0], first)
	factor := multiplesOf(scales, both(fill(u.perScale)), least, most)
	bestError, best := both(fill(infinity)), pairs{}
	for lane := range count {
		scale := both(fill(u.scale)).mul(factor.add(both(fill(about.scale[lane]))).max(least).min(most))
		multiple := multiplesOf(minimums.add(scale.sub(scales).mul(slope)), both(fill(u.perMinimum)), pair{}, most)
		minimum := both(fill(u.minimum)).mul(multiple.add(both(fill(about.minimum[lane]))).max(pair{}).min(most))
		if lane == 0 {
			scale, minimum = plain.scale, plain.minimum
		}
		inverse, offset := coders(scale, minimum)
		total := groupErrors(g, scale, minimum, inverse, offset, &l.laid[0], &l.laidImportance[0], first, groups)
		if lane == 0 {
			total.store(&l.plainError[0], first)
			continue
		}
		best = pairs{whereLess(total, bestError, scale, best.scale), whereLess(total, bestError, minimum, best.minimum)}
		bestError = whereLess(total, bestError, total, bestError)
	}
	bestError.store(&l.error[0], first)
	best.scale.store(&l.scale[0], first)
	best.minimum.store(&l.minimum[0], first)
}

// multiplesOf are the nearest multiples of least .. most.
func multiplesOf(v, per, least, most pair) pair { return v.mul(per).max(least).min(most).round() }

// unitCostsNEON is addUnitCosts. A lane has a trial.
func unitCostsNEON(costs, tried, lanes *float32, count int, least, most float32) {
	l, t := (*groupLanes)(unsafe.Pointer(lanes)), (*trials)(unsafe.Pointer(tried))
	lowest, highest := both(fill(least)), both(fill(most))
	for lane := 0; lane < trialLanes; lane += 8 {
		d, m := loadPair(&t.scale[0], lane), loadPair(&t.minimum[0], lane)
		perScale, _ := coders(d, pair{})
		perMinimum, _ := coders(m, pair{})
		for i := range count {
			scales, minimums := both(fill(l.scale[i])), both(fill(l.minimum[i]))
			scale := d.mul(multiplesOf(scales, perScale, lowest, highest)).sub(scales)
			minimum := minimums.add(scale.mul(both(fill(l.slope[i]))))
			rest := m.mul(multiplesOf(minimum, perMinimum, pair{}, highest)).sub(minimum)
			cost := scale.mul(scale).mul(both(fill(l.scaleCost[i]))).add(rest.mul(rest).mul(both(fill(l.minimumCost[i]))))
			addTo(costs, lane, cost.low, cost.high)
		}
	}
}
