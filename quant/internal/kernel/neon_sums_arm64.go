//go:build goexperiment.simd && go1.27

package kernel

import (
	"simd/archsimd"
	"unsafe"
)

// totals are two lanes.
func (l *laneSums) totals(lane int) (e, w, d, p, m doubles) {
	return loadDoubles(&l.error, lane), loadDoubles(&l.weight, lane), loadDoubles(&l.decoded, lane), loadDoubles(&l.product, lane), loadDoubles(&l.maxError, lane)
}

func (l *laneSums) setTotals(lane int, e, w, d, p, m doubles) {
	storeDoubles(e, &l.error, lane)
	storeDoubles(w, &l.weight, lane)
	storeDoubles(d, &l.decoded, lane)
	storeDoubles(p, &l.product, lane)
	storeDoubles(m, &l.maxError, lane)
}

func doublesAt(p *[sumLanes]float64, lane int) *[2]float64 {
	return (*[2]float64)(unsafe.Add(unsafe.Pointer(p), 8*lane))
}

func loadDoubles(p *[sumLanes]float64, lane int) doubles {
	return archsimd.LoadFloat64x2Array(doublesAt(p, lane))
}

func storeDoubles(v doubles, p *[sumLanes]float64, lane int) { v.StoreArray(doublesAt(p, lane)) }

// addErrors is laneSums.add for two lanes.
func addErrors(weight, decoded, e, w, d, p, m doubles) (doubles, doubles, doubles, doubles, doubles) {
	rest := weight.Sub(decoded)
	return e.Add(rest.Mul(rest)), w.Add(weight.Mul(weight)), d.Add(decoded.Mul(decoded)), p.Add(weight.Mul(decoded)), m.Max(rest.Abs())
}

// sumsNEON adds the errors of each group to laneSums, first of lanes 0 .. 3, then of the others:
// the totals of all would leave too few registers.
func sumsNEON(weights *byte, groups, groupSize int, scale, zeroPoint *float32, codes *byte, sums *float64, t ElementType) {
	l, wide := (*laneSums)(unsafe.Pointer(sums)), newWidening()
	for lane := 0; lane < sumLanes; lane += 4 {
		e0, w0, d0, p0, m0 := l.totals(lane)
		e2, w2, d2, p2, m2 := l.totals(lane + 2)
		at := lane
		for group := range groups {
			s, z := repeat(scale, group), repeat(zeroPoint, group)
			for end := at + groupSize; at < end; at += sumLanes {
				w, d := loadFour(weights, at, t, wide), loadFourCodes(codes, at).Sub(z).Mul(s)
				e0, w0, d0, p0, m0 = addErrors(w.ConvertLo2ToFloat64(), d.ConvertLo2ToFloat64(), e0, w0, d0, p0, m0)
				e2, w2, d2, p2, m2 = addErrors(w.HiToLo().ConvertLo2ToFloat64(), d.HiToLo().ConvertLo2ToFloat64(), e2, w2, d2, p2, m2)
			}
		}
		l.setTotals(lane, e0, w0, d0, p0, m0)
		l.setTotals(lane+2, e2, w2, d2, p2, m2)
	}
}

func sumsOf(t ElementType) func(*byte, int, int, *float32, *float32, *byte, *float64, int) {
	return func(weights *byte, groups, groupSize int, scale, zeroPoint *float32, codes *byte, sums *float64, _ int) {
		sumsNEON(weights, groups, groupSize, scale, zeroPoint, codes, sums, t)
	}
}

// decodedSumsNEON adds the errors of n weights.
func decodedSumsNEON(weights, decoded *float32, n int, sums *float64) {
	l := (*laneSums)(unsafe.Pointer(sums))
	for lane := 0; lane < sumLanes; lane += 4 {
		e0, w0, d0, p0, m0 := l.totals(lane)
		e2, w2, d2, p2, m2 := l.totals(lane + 2)
		for at := lane; at < n; at += sumLanes {
			w, d := loadFloats(weights, at), loadFloats(decoded, at)
			e0, w0, d0, p0, m0 = addErrors(w.ConvertLo2ToFloat64(), d.ConvertLo2ToFloat64(), e0, w0, d0, p0, m0)
			e2, w2, d2, p2, m2 = addErrors(w.HiToLo().ConvertLo2ToFloat64(), d.HiToLo().ConvertLo2ToFloat64(), e2, w2, d2, p2, m2)
		}
		l.setTotals(lane, e0, w0, d0, p0, m0)
		l.setTotals(lane+2, e2, w2, d2, p2, m2)
	}
}

func tailsOf(t ElementType) addTails {
	return func(magnitudes, squares *float64, rows **byte, columns int) {
		addTailsNEON(magnitudes, squares, rows, columns, t)
	}
}

// addTailsNEON is addTails.
func addTailsNEON(magnitudes, squares *float64, rows **byte, columns int, t ElementType) {
	last, wide := (*[tailRows]*byte)(unsafe.Pointer(rows)), newWidening()
	a, b, c, d := last[0], last[1], last[2], last[3]
	for at := 0; at < columns; at += 4 {
		w, x, y, z := loadFour(a, at, t, wide).Abs(), loadFour(b, at, t, wide).Abs(), loadFour(c, at, t, wide).Abs(), loadFour(d, at, t, wide).Abs()
		addWidened(magnitudes, at, w.Add(x).Add(y).Add(z))
		addWidened(squares, at, w.Mul(w).Add(x.Mul(x)).Add(y.Mul(y)).Add(z.Mul(z)))
	}
}

func addWidened(sums *float64, at int, v floats) {
	low, high := pairOfDoubles(sums, at), pairOfDoubles(sums, at+2)
	archsimd.LoadFloat64x2Array(low).Add(v.ConvertLo2ToFloat64()).StoreArray(low)
	archsimd.LoadFloat64x2Array(high).Add(v.HiToLo().ConvertLo2ToFloat64()).StoreArray(high)
}

func pairOfDoubles(p *float64, i int) *[2]float64 {
	return (*[2]float64)(unsafe.Add(unsafe.Pointer(p), 8*i))
}
