package kernel

import "math"

// rangeOf finds the smallest and the largest weight of a group, or of a part of it.
func (s *scratch) rangeOf(weights []byte, t ElementType) (lo, hi float32, fault Fault) {
	lo, hi = float32(math.Inf(1)), float32(math.Inf(-1))
	s.tiles(weights, t, func(first int, tile []float32) {
		for i, w := range tile {
			if !isFinite(w) && fault.Kind == NoFault {
				fault = Fault{Kind: NonFinite, Index: first + i, Value: w}
			}
			if w < lo {
				lo = w
			}
			if w > hi {
				hi = w
			}
		}
	})
	return lo, hi, fault
}
