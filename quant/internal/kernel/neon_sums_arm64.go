//go:build goexperiment.simd

package kernel

import (
	"simd/archsimd"
	"unsafe"
)

// laneTotals are two lanes of laneSums at a time.
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

// sumsNEON adds the errors of each group to laneSums.
func sumsNEON(weights *byte, groups, groupSize int, scale, zeroPoint *float32, codes *byte, sums *float64, t ElementType) {
	l := (*laneSums)(unsafe.Pointer(sums))
	e0, w0, d0, p0, m0 := l.totals(0)
	e2, w2, d2, p2, m2 := l.totals(2)
	e4, w4, d4, p4, m4 := l.totals(4)
	e6, w6, d6, p6, m6 := l.totals(6)
	at := 0
	for group := range groups {
		s, z := both(repeat(scale, group)), both(repeat(zeroPoint, group))
		for end := at + groupSize; at < end; at += 8 {
			w, d := loadElements(weights, at, t), widenOctets(loadLower(codes, at)).sub(z).mul(s)
			e0, w0, d0, p0, m0 = addErrors(w.low.ConvertLo2ToFloat64(), d.low.ConvertLo2ToFloat64(), e0, w0, d0, p0, m0)
			e2, w2, d2, p2, m2 = addErrors(w.low.HiToLo().ConvertLo2ToFloat64(), d.low.HiToLo().ConvertLo2ToFloat64(), e2, w2, d2, p2, m2)
			e4, w4, d4, p4, m4 = addErrors(w.high.ConvertLo2ToFloat64(), d.high.ConvertLo2ToFloat64(), e4, w4, d4, p4, m4)
			e6, w6, d6, p6, m6 = addErrors(w.high.HiToLo().ConvertLo2ToFloat64(), d.high.HiToLo().ConvertLo2ToFloat64(), e6, w6, d6, p6, m6)
		}
	}
	l.setTotals(0, e0, w0, d0, p0, m0)
	l.setTotals(2, e2, w2, d2, p2, m2)
	l.setTotals(4, e4, w4, d4, p4, m4)
	l.setTotals(6, e6, w6, d6, p6, m6)
}

func sumsOf(t ElementType) func(*byte, int, int, *float32, *float32, *byte, *float64) {
	return func(weights *byte, groups, groupSize int, scale, zeroPoint *float32, codes *byte, sums *float64) {
		sumsNEON(weights, groups, groupSize, scale, zeroPoint, codes, sums, t)
	}
}

// decodedSumsNEON adds the errors of n weights.
func decodedSumsNEON(weights, decoded *float32, n int, sums *float64) {
	l := (*laneSums)(unsafe.Pointer(sums))
	e0, w0, d0, p0, m0 := l.totals(0)
	e2, w2, d2, p2, m2 := l.totals(2)
	e4, w4, d4, p4, m4 := l.totals(4)
	e6, w6, d6, p6, m6 := l.totals(6)
	for at := 0; at < n; at += 8 {
		w, d := loadPair(weights, at), loadPair(decoded, at)
		e0, w0, d0, p0, m0 = addErrors(w.low.ConvertLo2ToFloat64(), d.low.ConvertLo2ToFloat64(), e0, w0, d0, p0, m0)
		e2, w2, d2, p2, m2 = addErrors(w.low.HiToLo().ConvertLo2ToFloat64(), d.low.HiToLo().ConvertLo2ToFloat64(), e2, w2, d2, p2, m2)
		e4, w4, d4, p4, m4 = addErrors(w.high.ConvertLo2ToFloat64(), d.high.ConvertLo2ToFloat64(), e4, w4, d4, p4, m4)
		e6, w6, d6, p6, m6 = addErrors(w.high.HiToLo().ConvertLo2ToFloat64(), d.high.HiToLo().ConvertLo2ToFloat64(), e6, w6, d6, p6, m6)
	}
	l.setTotals(0, e0, w0, d0, p0, m0)
	l.setTotals(2, e2, w2, d2, p2, m2)
	l.setTotals(4, e4, w4, d4, p4, m4)
	l.setTotals(6, e6, w6, d6, p6, m6)
}
