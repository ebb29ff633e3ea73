//go:build goexperiment.simd && go1.27

package kernel

import "simd/archsimd"

// The loops over the weights of a group, which is tried with 8 scales at a time, or 4 of a
// table. There is one for each kind of levels, so that all that it needs stays in registers.
// Importance may be nil.

// trialSums8 are the trialSums of 8 trials.
func trialSums8(g *gridVectors, inverse, offset pair, weights, importance *float32, n int, kind gridKind) (level, levelLevel, levelWeight pair) {
	switch kind {
	case evenKind:
		return evenSums(g, inverse, offset, weights, importance, n)
	case tableKind:
		level.low, levelLevel.low, levelWeight.low = tableSums(g, inverse.low, offset.low, weights, importance, n)
		level.high, levelLevel.high, levelWeight.high = tableSums(g, inverse.high, offset.high, weights, importance, n)
		return level, levelLevel, levelWeight
	default:
		return floatSums(g, inverse, offset, weights, importance, n)
	}
}

func evenSums(g *gridVectors, inverse, offset pair, weights, importance *float32, n int) (level, levelLevel, levelWeight pair) {
	low, high := both(loadFloats(&g.low[0], 0)), both(loadFloats(&g.high[0], 0))
	for i := range n {
		w := both(repeat(weights, i))
		q := w.mul(inverse).add(offset).max(low).min(high).round()
		weighted := q
		if importance != nil {
			weighted = both(repeat(importance, i)).mul(q)
		}
		level, levelLevel, levelWeight = level.add(weighted), levelLevel.add(weighted.mul(q)), levelWeight.add(weighted.mul(w))
	}
	return level, levelLevel, levelWeight
}

func floatSums(g *gridVectors, inverse, offset pair, weights, importance *float32, n int) (level, levelLevel, levelWeight pair) {
	exponents := archsimd.BroadcastUint32x4(infinityBits)
	for i := range n {
		w := both(repeat(weights, i))
		y := w.mul(inverse).add(offset)
		q := pair{g.floatLevel(y.low, exponents), g.floatLevel(y.high, exponents)}
		weighted := q
		if importance != nil {
			weighted = both(repeat(importance, i)).mul(q)
		}
		level, levelLevel, levelWeight = level.add(weighted), levelLevel.add(weighted.mul(q)), levelWeight.add(weighted.mul(w))
	}
	return level, levelLevel, levelWeight
}

func tableSums(g *gridVectors, inverse, offset floats, weights, importance *float32, n int) (level, levelLevel, levelWeight floats) {
	for i := range n {
		w := repeat(weights, i)
		y := w.Mul(inverse).Add(offset)
		place, upper := g.tableQuarter(y)
		place = g.tablePlace(y, place)
		q := lookUp8(bitsOf(&g.upperLevels), place).IfElse(upper, lookUp8(bitsOf(&g.lowerLevels), place)).BitsToFloat32()
		weighted := q
		if importance != nil {
			weighted = repeat(importance, i).Mul(q)
		}
		level, levelLevel, levelWeight = level.Add(weighted), levelLevel.Add(weighted.Mul(q)), levelWeight.Add(weighted.Mul(w))
	}
	return level, levelLevel, levelWeight
}

// trialErrors8 adds to the squared errors of 8 trials.
func trialErrors8(g *gridVectors, total, scale, minimum pair, weights, importance *float32, n int, kind gridKind) pair {
	inverse, offset := coders(scale, minimum)
	switch kind {
	case evenKind:
		return evenErrors(g, total, scale, minimum, inverse, offset, weights, importance, n)
	case tableKind:
		return pair{
			tableErrors(g, total.low, scale.low, inverse.low, weights, importance, n),
			tableErrors(g, total.high, scale.high, inverse.high, weights, importance, n),
		}
	default:
		return floatErrors(g, total, scale, inverse, weights, importance, n)
	}
}

func evenErrors(g *gridVectors, total, scale, minimum, inverse, offset pair, weights, importance *float32, n int) pair {
	low, high := both(loadFloats(&g.low[0], 0)), both(loadFloats(&g.high[0], 0))
	for i := range n {
		w := both(repeat(weights, i))
		rest := w.sub(w.mul(inverse).add(offset).max(low).min(high).round().mul(scale).sub(minimum))
		weighted := rest
		if importance != nil {
			weighted = both(repeat(importance, i)).mul(rest)
		}
		total = total.add(weighted.mul(rest))
	}
	return total
}

// floatErrors has no minimums, as other encodings have none.
func floatErrors(g *gridVectors, total, scale, inverse pair, weights, importance *float32, n int) pair {
	exponents := archsimd.BroadcastUint32x4(infinityBits)
	for i := range n {
		w := both(repeat(weights, i))
		y := w.mul(inverse)
		rest := w.sub(pair{g.floatLevel(y.low, exponents), g.floatLevel(y.high, exponents)}.mul(scale))
		weighted := rest
		if importance != nil {
			weighted = both(repeat(importance, i)).mul(rest)
		}
		total = total.add(weighted.mul(rest))
	}
	return total
}

// tableErrors is of 4 trials, and has no minimums either.
func tableErrors(g *gridVectors, total, scale, inverse floats, weights, importance *float32, n int) floats {
	for i := range n {
		w := repeat(weights, i)
		y := w.Mul(inverse)
		place, upper := g.tableQuarter(y)
		place = g.tablePlace(y, place)
		rest := w.Sub(lookUp8(bitsOf(&g.upperLevels), place).IfElse(upper, lookUp8(bitsOf(&g.lowerLevels), place)).BitsToFloat32().Mul(scale))
		weighted := rest
		if importance != nil {
			weighted = repeat(importance, i).Mul(rest)
		}
		total = total.Add(weighted.Mul(rest))
	}
	return total
}
