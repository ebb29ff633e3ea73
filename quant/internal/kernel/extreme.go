package kernel

import "math"

const smallestNormal = 0x1p-126

// fitExtreme is fit for groups whose plain scale would be very small, very
// large, or overflow. It keeps scale and zero-point finite and scale non-zero.
func fitExtreme(lo, hi float32, f Format) (Parameters, bool) {
	exact := (float64(hi) - float64(lo)) / float64(f.MaxCode())
	if f.ZeroPoint == SymmetricZero {
		exact = -(float64(lo) + float64(hi)) / float64(half(f))
	}
	unrounded := float32(exact)
	if abs(unrounded) < smallestNormal && math.Abs(float64(unrounded)) < math.Abs(exact) {
		// Subnormal scales are coarse: rounding down could leave much of the
		// range, or all of it, out of reach.
		unrounded = math.Nextafter32(unrounded, float32(math.Inf(int(math.Copysign(1, exact)))))
	}
	scale := roundScale(unrounded, f.ScaleDtype)
	if scale == 0 {
		return flat(lo, hi, f), true
	}
	if !isFinite(scale) {
		return Parameters{Scale: unrounded}, false
	}
	p := withZeroPoint(scale, lo, f)
	if !endsDecode(p, f) {
		// Rounding up the scale may be what overflows.
		p = withZeroPoint(towardZero(scale, f.ScaleDtype), lo, f)
	}
	return p, true
}

func withZeroPoint(scale, lo float32, f Format) Parameters {
	p := Parameters{Scale: scale, extreme: true}
	zero := -float64(lo) / float64(scale)
	switch f.ZeroPoint {
	case SymmetricZero:
		p.ZeroPoint = half(f)
	case FloatZero:
		p.ZeroPoint = float32(zero) + 0
		// Weights close to each other near the largest float32: rounding up
		// the zero-point may be what overflows.
		for !isFinite(decode(0, scale, p.ZeroPoint)) && !isFinite(decode(uint8(f.MaxCode()), scale, p.ZeroPoint)) {
			p.ZeroPoint = math.Nextafter32(p.ZeroPoint, 0)
		}
	default:
		p.ZeroPoint = float32(math.RoundToEven(clamp(zero, f))) + 0
	}
	return p
}

func clamp(x float64, f Format) float64 {
	return math.Max(0, math.Min(float64(f.MaxCode()), x))
}

func endsDecode(p Parameters, f Format) bool {
	return isFinite(decode(0, p.Scale, p.ZeroPoint)) &&
		isFinite(decode(uint8(f.MaxCode()), p.Scale, p.ZeroPoint))
}

// towardZero is the next smaller magnitude of the scale's type. Only scales
// near the largest float32 get here, so float16 never does.
func towardZero(scale float32, dtype ScaleDtype) float32 {
	step := uint32(1)
	if dtype == ScaleBFloat16 {
		step = 1 << 16
	}
	return math.Float32frombits(math.Float32bits(scale) - step)
}

// codeExtreme quantizes in float64, and takes the next code toward the
// zero-point where the nearest one would decode to Inf.
func codeExtreme(codes []uint8, weights []float32, p Parameters, f Format) {
	for i, w := range weights {
		q := uint8(math.RoundToEven(clamp(float64(w)/float64(p.Scale)+float64(p.ZeroPoint), f)))
		for !isFinite(decode(q, p.Scale, p.ZeroPoint)) {
			if float32(q) < p.ZeroPoint {
				q++
			} else {
				q--
			}
		}
		codes[i] = q
	}
}
