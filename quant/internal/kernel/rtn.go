package kernel

import "math"

// Scales within these bounds are computed in float32 as the formulas stand,
// and every kernel gives the same bytes. Beyond them the products or 1/scale
// could overflow or lose bits, so a group is fitted and coded in float64.
// The same holds for a floating zero-point near the largest float32.
const (
	minPlainScale  = 0x1p-120
	maxPlainScale  = 0x1p+120
	maxPlainOffset = 0x1p+127
)

// fit chooses the round-to-nearest parameters of a group whose finite weights
// span lo .. hi. Every float32 operation is rounded by itself. The second
// result is false if the scale's type rounds it to Inf; scale then holds the
// unrounded value.
func fit(lo, hi float32, f Format) (Parameters, bool) {
	lo, hi = span(lo, hi, f.ZeroPoint)
	if lo == hi { // all weights are the same; with an integer zero, all are 0
		return constant(lo, f), true
	}
	unrounded := stepOf(lo, hi, f)
	if !isPlain(unrounded, lo, hi, f) {
		return fitExtreme(lo, hi, f)
	}
	scale := roundScale(unrounded, f.ScaleDtype)
	if scale == 0 {
		return flat(lo, hi, f), true
	}
	if !isFinite(scale) {
		return Parameters{Scale: unrounded}, false
	}
	p := Parameters{Scale: scale, inverse: 1 / scale}
	switch f.ZeroPoint {
	case SymmetricZero:
		p.ZeroPoint = half(f)
	case FloatZero:
		p.ZeroPoint = float32(-lo*p.inverse) + 0
	default:
		p.ZeroPoint = round(-lo*p.inverse, float32(f.MaxCode()))
	}
	return p, true
}

// span gives the ends that the codes have to reach. For symmetric it is
// (0, m) or (m, 0), m being the weight of largest magnitude.
func span(lo, hi float32, zero ZeroPoint) (float32, float32) {
	switch zero {
	case FloatZero:
		return lo, hi
	case SymmetricZero:
		if hi >= -lo {
			return 0, hi
		}
		return lo, 0
	default:
		return min(lo, 0), max(hi, 0)
	}
}

// stepOf is the scale before rounding; it may overflow.
func stepOf(lo, hi float32, f Format) float32 {
	if f.ZeroPoint == SymmetricZero {
		return -(lo + hi) / half(f) // one of them is 0
	}
	return (hi - lo) / float32(f.MaxCode())
}

func isPlain(scale, lo, hi float32, f Format) bool {
	if f.ZeroPoint == FloatZero && max(abs(lo), abs(hi)) >= maxPlainOffset {
		return false
	}
	return abs(scale) >= minPlainScale && abs(scale) <= maxPlainScale
}

func constant(value float32, f Format) Parameters {
	p := Parameters{Scale: 1, inverse: 1}
	switch f.ZeroPoint {
	case SymmetricZero:
		p.ZeroPoint = half(f)
	case FloatZero:
		p.ZeroPoint = -value + 0
	}
	return p
}

// flat is for a group whose scale the scale's type rounds to 0: as for one of zeros, or,
// where a floating zero-point has no 0 in its span, for one of the middle. Weights are so
// close to that value that all of them get its code.
func flat(lo, hi float32, f Format) Parameters {
	value := float32(0)
	if lo > 0 || hi < 0 {
		value = lo + float32((hi-lo)/2)
	}
	p := constant(value, f)
	p.extreme, p.underflow = true, true
	return p
}

func half(f Format) float32 { return float32(int(1) << (f.BitWidth - 1)) }

func abs(x float32) float32 { return math.Float32frombits(math.Float32bits(x) &^ signBit) }

// round clamps x to 0 .. maxCode and rounds it, ties to even. Clamping first
// gives the same, as both bounds are whole. Adding 2^23 leaves no bits for a
// fraction.
func round(x, maxCode float32) float32 {
	if x > maxCode {
		x = maxCode
	}
	if !(x > 0) {
		return 0
	}
	return float32(x+0x1p23) - 0x1p23
}
