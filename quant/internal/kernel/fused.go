package kernel

import "math"

// fusedMultiplyAdd is x*y + z, rounded once, as instructions of vectors have it. The product of two
// float32 is exact in float64, so that only a sum that is rounded to the middle between two float32
// may be rounded to the wrong one of them.
func fusedMultiplyAdd(x, y, z float32) float32 {
	product, addend := float64(float64(x)*float64(y)), float64(z)
	sum := product + addend
	const unused, middle = 1<<29 - 1, 1 << 28 // the bits of a float64 that a float32 lacks
	bits := math.Float64bits(sum)
	if bits&unused != middle && math.Abs(sum) >= smallestNormal {
		return float32(sum)
	}
	// What sum lacks is exact (Knuth's TwoSum). Its sign in the last bit, which is odd then, is
	// enough to round it to the right side.
	rounded := sum - product
	lacks := (product - (sum - rounded)) + (addend - rounded)
	if bits&1 == 0 && (lacks < 0 || lacks > 0) {
		if (lacks > 0) == (sum > 0) {
			bits++
		} else {
			bits--
		}
	}
	return float32(math.Float64frombits(bits))
}
