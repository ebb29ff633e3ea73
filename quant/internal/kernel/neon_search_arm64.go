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

// storePair stores 8 lanes.
func storePair(v pair, p *float32, lane int) {
	p = floatAt(p, lane)
	storeFloats(v.low, p, 0)
	storeFloats(v.high, p, 4)
}

// rowSumsNEON are the sums of n rows of a tile.
func rowSumsNEON(sums, tile *float32, n int) {
	for lane := 0; lane < searchGroups; lane += 8 {
		var sum pair
		for at, end := lane, lane+n*searchGroups; at < end; at += searchGroups {
			sum = sum.add(loadPair(tile, at))
		}
		storePair(sum, sums, lane)
	}
}

// stepSumsNEON are the stepSums of n rows of a tile.
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
		storePair(code, &l.code[0], lane)
		storePair(codeCode, &l.codeCode[0], lane)
		storePair(rest, &l.rest[0], lane)
		storePair(restCode, &l.restCode[0], lane)
		storePair(restRest, &l.restRest[0], lane)
	}
}

// stepSumsWeightedNEON does so by importance.
func stepSumsWeightedNEON(lanes, tile, importance *float32, n int, maxCode float32) {
	l, most := (*searchLanes)(unsafe.Pointer(lanes)), both(fill(maxCode))
	for lane := 0; lane < searchGroups; lane += 8 {
		inverse, zeroPoint := loadPair(&l.inverse[0], lane), loadPair(&l.zeroPoint[0], lane)
		var code, codeCode, rest, restCode, restRest pair
		for at, end := lane, lane+n*searchGroups; at < end; at += searchGroups {
			v := loadPair(tile, at).mul(inverse).add(zeroPoint)
			q := v.max(pair{}).min(most).round()
			r := v.sub(q)
			h := loadPair(importance, at)
			weightedCode, weightedRest := h.mul(q), h.mul(r)
			code, codeCode = code.add(weightedCode), codeCode.add(weightedCode.mul(q))
			rest, restCode, restRest = rest.add(weightedRest), restCode.add(weightedRest.mul(q)), restRest.add(weightedRest.mul(r))
		}
		storePair(code, &l.code[0], lane)
		storePair(codeCode, &l.codeCode[0], lane)
		storePair(rest, &l.rest[0], lane)
		storePair(restCode, &l.restCode[0], lane)
		storePair(restRest, &l.restRest[0], lane)
	}
}
