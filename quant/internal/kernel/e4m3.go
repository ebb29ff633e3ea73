package kernel

import "math"

// E4M3 is 8-bit floating point of 1 sign, 4 exponent and 3 mantissa bits, without Inf
// ("OCP 8-bit Floating Point Specification", 2023).

const (
	maxE4M3            = 448
	smallestE4M3       = 0x1p-9
	smallestNormalE4M3 = 0x1p-6
)

var e4m3Grid = (&grid{kind: e4m3Kind, low: -maxE4M3, high: maxE4M3}).prepared()

// e4m3Levels are by code; 0x7f and 0xff are NaN.
var e4m3Levels = func() (levels [256]float32) {
	for code := range levels {
		levels[code] = E4M3Value(uint8(code))
	}
	return levels
}()

// E4M3Value is what a code stands for.
func E4M3Value(code uint8) float32 {
	magnitude := float32(code&7) * smallestE4M3
	switch exponent := int(code >> 3 & 15); {
	case code&0x7f == 0x7f:
		magnitude = float32(math.NaN())
	case exponent > 0:
		magnitude = float32(math.Ldexp(float64(8+code&7), exponent-10))
	}
	return math.Float32frombits(math.Float32bits(magnitude) | uint32(code&0x80)<<24)
}

// E4M3Bits is the code of a finite number, rounded by roundE4M3.
func E4M3Bits(x float32) uint8 {
	bits := math.Float32bits(roundE4M3(x))
	sign := uint8(bits >> 24 & 0x80)
	if magnitude := math.Float32frombits(bits &^ signBit); magnitude < smallestNormalE4M3 {
		return sign | uint8(magnitude/smallestE4M3)
	}
	return sign | uint8(bits>>20-(127-7)<<3)
}

// roundE4M3 rounds to the nearest finite number of E4M3, ties to even.
func roundE4M3(x float32) float32 {
	magnitude := min(abs(x), maxE4M3)
	if magnitude < smallestNormalE4M3 {
		magnitude = float32(magnitude+0x1p14) - 0x1p14 // whose last bit is worth 2^-9
	} else {
		bits := math.Float32bits(magnitude)
		magnitude = math.Float32frombits((bits + 0x7ffff + bits>>20&1) &^ 0xfffff)
	}
	return math.Float32frombits(math.Float32bits(magnitude) | math.Float32bits(x)&signBit)
}
