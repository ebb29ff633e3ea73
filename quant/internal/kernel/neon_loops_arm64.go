//go:build goexperiment.simd && go1.27

package kernel

// The loops over the weights of a group, which is tried with 8 scales at a time. There is one for each kind of levels, so that all that it needs stays in registers.
// Importance may be nil.

// trialSums8 are the trialSums of 8 trials, but for those of levels, as there are no minimums.
func trialSums8(g *gridVectors, inverse pair, weights, importance *float32, n int, kind gridKind) (levelLevel, levelWeight pair) {
	if kind == tableKind {
		return tableSums(g, inverse, weights, importance, n)
	}
	return floatSums(g, inverse, weights, importance, n)
}

func floatSums(g *gridVectors, inverse pair, weights, importance *float32, n int) (levelLevel, levelWeight pair) {
	exponents, low, high, smallestNormal, magic := g.floatBounds()
	for i := range n {
		w := both(repeat(weights, i))
		y := w.mul(inverse)
		q := pair{floatLevel(y.low, exponents, low, high, smallestNormal, magic), floatLevel(y.high, exponents, low, high, smallestNormal, magic)}
		weighted := q
		if importance != nil {
			weighted = both(repeat(importance, i)).mul(q)
		}
		levelLevel, levelWeight = weighted.mulAdd(q, levelLevel), weighted.mulAdd(w, levelWeight)
	}
	return levelLevel, levelWeight
}

func tableSums(g *gridVectors, inverse pair, weights, importance *float32, n int) (levelLevel, levelWeight pair) {
	b1, b3, b5, b7, b9, b11, b13 := g.pairBounds()
	o0, o1, o2, o3 := planes(&g.oddBytes)
	l0, l1, l2, l3 := planes(&g.levelBytes)
	for i := range n {
		w := both(repeat(weights, i))
		y := w.mul(inverse)
		low, high := tablePlace(y.low, b1, b3, b5, b7, b9, b11, b13), tablePlace(y.high, b1, b3, b5, b7, b9, b11, b13)
		bound := pairOf(lookUp(placeOctets(low, high), o0, o1, o2, o3))
		low, high = nextPlace(low, y.low.Greater(bound.low)), nextPlace(high, y.high.Greater(bound.high))
		q := pairOf(lookUp(placeOctets(low, high), l0, l1, l2, l3))
		weighted := q
		if importance != nil {
			weighted = both(repeat(importance, i)).mul(q)
		}
		levelLevel, levelWeight = weighted.mulAdd(q, levelLevel), weighted.mulAdd(w, levelWeight)
	}
	return levelLevel, levelWeight
}

// trialErrors8 adds to the squared errors of 8 trials.
func trialErrors8(g *gridVectors, total, scale pair, weights, importance *float32, n int, kind gridKind) pair {
	inverse, _ := coders(scale, pair{})
	if kind == tableKind {
		return tableErrors(g, total, scale, inverse, weights, importance, n)
	}
	return floatErrors(g, total, scale, inverse, weights, importance, n)
}

func floatErrors(g *gridVectors, total, scale, inverse pair, weights, importance *float32, n int) pair {
	negative := pair{}.sub(scale)
	exponents, low, high, smallestNormal, magic := g.floatBounds()
	for i := range n {
		w := both(repeat(weights, i))
		y := w.mul(inverse)
		rest := pair{floatLevel(y.low, exponents, low, high, smallestNormal, magic), floatLevel(y.high, exponents, low, high, smallestNormal, magic)}.mulAdd(negative, w)
		weighted := rest
		if importance != nil {
			weighted = both(repeat(importance, i)).mul(rest)
		}
		total = weighted.mulAdd(rest, total)
	}
	return total
}

func tableErrors(g *gridVectors, total, scale, inverse pair, weights, importance *float32, n int) pair {
	negative := pair{}.sub(scale)
	b1, b3, b5, b7, b9, b11, b13 := g.pairBounds()
	o0, o1, o2, o3 := planes(&g.oddBytes)
	l0, l1, l2, l3 := planes(&g.levelBytes)
	for i := range n {
		w := both(repeat(weights, i))
		y := w.mul(inverse)
		low, high := tablePlace(y.low, b1, b3, b5, b7, b9, b11, b13), tablePlace(y.high, b1, b3, b5, b7, b9, b11, b13)
		bound := pairOf(lookUp(placeOctets(low, high), o0, o1, o2, o3))
		low, high = nextPlace(low, y.low.Greater(bound.low)), nextPlace(high, y.high.Greater(bound.high))
		rest := pairOf(lookUp(placeOctets(low, high), l0, l1, l2, l3)).mulAdd(negative, w)
		weighted := rest
		if importance != nil {
			weighted = both(repeat(importance, i)).mul(rest)
		}
		total = weighted.mulAdd(rest, total)
	}
	return total
}
