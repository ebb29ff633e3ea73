package kernel

import "math"

// floatFormat is a small floating point without Inf: a sign, exponent and mantissa bits.
type floatFormat struct {
	exponentBits, mantissaBits int
	largest, smallestNormal    float32
	smallest                   float32 // subnormal
	// magic times a power of two leaves no bits for what is less than a mantissa bit of it.
	magic float32
	// shiftedBias is what the bits of a float32, shifted, have more than those of the format.
	shiftedBias uint32
}

var (
	// e4m3 is of "OCP 8-bit Floating Point Specification" (2023), e2m1 of "OCP Microscaling
	// Formats" (2023).
	e4m3 = newFloatFormat(4, 3, 7, 448)
	e2m1 = newFloatFormat(2, 1, 1, 6)

	e4m3Grid, e2m1Grid     = floatGrid(e4m3), floatGrid(e2m1)
	e4m3Levels, e2m1Levels = e4m3.levels(), e2m1.levels()
)

func newFloatFormat(exponentBits, mantissaBits, bias int, largest float32) *floatFormat {
	return &floatFormat{
		exponentBits:   exponentBits,
		mantissaBits:   mantissaBits,
		largest:        largest,
		smallestNormal: powerOf2(1 - bias),
		smallest:       powerOf2(1 - bias - mantissaBits),
		magic:          1.5 * powerOf2(23-mantissaBits),
		shiftedBias:    uint32(127-bias) << mantissaBits,
	}
}

func floatGrid(f *floatFormat) *grid {
	return (&grid{kind: floatKind, low: -f.largest, high: f.largest, float: f}).prepared()
}

func (f *floatFormat) shift() int   { return 23 - f.mantissaBits }
func (f *floatFormat) signBit() int { return f.exponentBits + f.mantissaBits }

// round gives the nearest number of the format, ties to even. What is nearest to 0 is +0.
func (f *floatFormat) round(x float32) float32 {
	x = min(max(x, -f.largest), f.largest)
	power := max(math.Float32frombits(math.Float32bits(x)&infinityBits), f.smallestNormal)
	magic := float32(power * f.magic)
	return float32(x+magic) - magic
}

// has tells whether a number that is not negative is one of the format.
func (f *floatFormat) has(x float32) bool {
	if x >= f.smallestNormal {
		return x <= f.largest && math.Float32bits(x)&(1<<f.shift()-1) == 0
	}
	steps := x / f.smallest
	return roundEven(steps) == steps
}

// roundPositive is round for what is not negative, faster.
func (f *floatFormat) roundPositive(x float32) float32 {
	if x > f.largest {
		return f.largest
	}
	power := math.Float32frombits(math.Float32bits(x) & infinityBits)
	if power < f.smallestNormal {
		power = f.smallestNormal
	}
	magic := float32(power * f.magic)
	return float32(x+magic) - magic
}

// code gives the code of the nearest number, whose sign is that of x even where it is 0.
func (f *floatFormat) code(x float32) uint8 {
	sign := uint8(math.Float32bits(x) >> 31 << f.signBit())
	return sign | f.codeOf(abs(f.round(x)))
}

// codeOf gives the code of a number of the format that is not negative.
func (f *floatFormat) codeOf(magnitude float32) uint8 {
	if magnitude < f.smallestNormal {
		return uint8(magnitude / f.smallest)
	}
	return uint8(math.Float32bits(magnitude)>>f.shift() - f.shiftedBias)
}

// value is the number of a code. E4M3 leaves one of each sign to NaN, which no weight gets;
// here it is the largest number, so that levels are all numbers and tables equal themselves.
func (f *floatFormat) value(code uint8) float32 {
	mantissa, exponent := float64(code&(1<<f.mantissaBits-1)), int(code)>>f.mantissaBits&(1<<f.exponentBits-1)
	if exponent > 0 {
		mantissa += float64(int(1) << f.mantissaBits)
		exponent--
	}
	magnitude := float32(math.Ldexp(mantissa, exponent)) * f.smallest
	magnitude = min(magnitude, f.largest)
	if code>>f.signBit()&1 == 1 {
		magnitude = float32(math.Copysign(float64(magnitude), -1))
	}
	return magnitude
}

// levels are the numbers of all codes.
func (f *floatFormat) levels() []float32 {
	levels := make([]float32, 2<<f.signBit())
	for code := range levels {
		levels[code] = f.value(uint8(code))
	}
	return levels
}

// E4M3Bits rounds to E4M3, ties to even; what is beyond it becomes the largest.
func E4M3Bits(x float32) uint8 { return e4m3.code(x) }
