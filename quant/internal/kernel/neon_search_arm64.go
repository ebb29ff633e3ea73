//go:build goexperiment.simd && go1.27

package kernel

import "unsafe"

// transposeNEON makes a tile of n rows of the weights of searchGroups groups.
func transposeNEON(groups **byte, offset, n int, tile *float32, t ElementType) {
	from, wide := (*[searchGroups]*byte)(unsafe.Pointer(groups)), newWidening()
	for group := 0; group < searchGroups; group += 4 {
		a, b, c, d := byteAt(from[group], offset), byteAt(from[group+1], offset), byteAt(from[group+2], offset), byteAt(from[group+3], offset)
		for row := 0; row < n; row += 8 {
			v, w, x, y := pairOf(loadElements(a, row, t, wide)), pairOf(loadElements(b, row, t, wide)), pairOf(loadElements(c, row, t, wide)), pairOf(loadElements(d, row, t, wide))
			to := floatAt(tile, row*searchGroups+group)
			storeColumns(v.low, w.low, x.low, y.low, to)
			storeColumns(v.high, w.high, x.high, y.high, floatAt(to, 4*searchGroups))
		}
	}
}

// storeColumns stores what is in the same lanes of four vectors as rows of a tile.
func storeColumns(v, w, x, y floats, to *float32) {
	a, b := v.ToBits().InterleaveLo(w.ToBits()).ReshapeToUint64s(), v.ToBits().InterleaveHi(w.ToBits()).ReshapeToUint64s()
	c, d := x.ToBits().InterleaveLo(y.ToBits()).ReshapeToUint64s(), x.ToBits().InterleaveHi(y.ToBits()).ReshapeToUint64s()
	storeFloats(a.InterleaveLo(c).ReshapeToUint32s().BitsToFloat32(), to, 0)
	storeFloats(a.InterleaveHi(c).ReshapeToUint32s().BitsToFloat32(), to, searchGroups)
	storeFloats(b.InterleaveLo(d).ReshapeToUint32s().BitsToFloat32(), to, 2*searchGroups)
	storeFloats(b.InterleaveHi(d).ReshapeToUint32s().BitsToFloat32(), to, 3*searchGroups)
}

func transposeOf(t ElementType) func(**byte, int, int, *float32) {
	return func(groups **byte, offset, n int, tile *float32) { transposeNEON(groups, offset, n, tile, t) }
}

// addTo adds sums of 8 lanes to those in memory.
func addTo(p *float32, lane int, low, high floats) {
	p = floatAt(p, lane)
	storeFloats(loadFloats(p, 0).Add(low), p, 0)
	storeFloats(loadFloats(p, 4).Add(high), p, 4)
}

// stepSumsNEON adds the stepSums of n rows of a tile.
func stepSumsNEON(lanes, tile *float32, n int, maxCode float32) {
	l, most := (*searchLanes)(unsafe.Pointer(lanes)), both(fill(maxCode))
	for lane := 0; lane < searchGroups; lane += 8 {
		inverse, zeroPoint := loadPair(&l.inverse[0], lane), loadPair(&l.zeroPoint[0], lane)
		var code, codeCode, rest, restCode, restRest pair
		for at, end := lane, lane+n*searchGroups; at < end; at += searchGroups {
			v := loadPair(tile, at).mul(inverse).add(zeroPoint)
			q := v.max(pair{}).min(most).round()
			r := v.sub(q)
			code, codeCode = code.add(q), codeCode.add(q.mul(q))
			rest, restCode, restRest = rest.add(r), restCode.add(r.mul(q)), restRest.add(r.mul(r))
		}
		addTo(&l.code[0], lane, code.low, code.high)
		addTo(&l.codeCode[0], lane, codeCode.low, codeCode.high)
		addTo(&l.rest[0], lane, rest.low, rest.high)
		addTo(&l.restCode[0], lane, restCode.low, restCode.high)
		addTo(&l.restRest[0], lane, restRest.low, restRest.high)
	}
}

// stepSumsWeightedNEON does so by importance.
func stepSumsWeightedNEON(lanes, tile, importance *float32, n int, maxCode float32) {
	l, most := (*searchLanes)(unsafe.Pointer(lanes)), both(fill(maxCode))
	for lane := 0; lane < searchGroups; lane += 8 {
		inverse, zeroPoint := loadPair(&l.inverse[0], lane), loadPair(&l.zeroPoint[0], lane)
		var code, codeCode, rest, restCode, restRest, weight pair
		for at, end := lane, lane+n*searchGroups; at < end; at += searchGroups {
			v := loadPair(tile, at).mul(inverse).add(zeroPoint)
			q := v.max(pair{}).min(most).round()
			r := v.sub(q)
			h := loadPair(importance, at)
			weight = weight.add(h)
			weightedCode, weightedRest := h.mul(q), h.mul(r)
			code, codeCode = code.add(weightedCode), codeCode.add(weightedCode.mul(q))
			rest, restCode, restRest = rest.add(weightedRest), restCode.add(weightedRest.mul(q)), restRest.add(weightedRest.mul(r))
		}
		addTo(&l.code[0], lane, code.low, code.high)
		addTo(&l.codeCode[0], lane, codeCode.low, codeCode.high)
		addTo(&l.rest[0], lane, rest.low, rest.high)
		addTo(&l.restCode[0], lane, restCode.low, restCode.high)
		addTo(&l.restRest[0], lane, restRest.low, restRest.high)
		addTo(&l.weight[0], lane, weight.low, weight.high)
	}
}
