package kernel

import (
	"encoding/binary"
	"math"
)

const (
	infinityBits = 0x7f800000
	signBit      = 0x80000000
)

var infinity = float32(math.Inf(1))

// load widens len(out) elements of src to float32.
func load(out []float32, src []byte, t ElementType) {
	switch t {
	case Float32:
		for i := range out {
			out[i] = math.Float32frombits(binary.LittleEndian.Uint32(src[i*4:]))
		}
	case Float16:
		for i := range out {
			out[i] = widenFloat16(binary.LittleEndian.Uint16(src[i*2:]))
		}
	case BFloat16:
		for i := range out {
			out[i] = math.Float32frombits(uint32(binary.LittleEndian.Uint16(src[i*2:])) << 16)
		}
	case Float64:
		for i := range out {
			out[i] = float32(math.Float64frombits(binary.LittleEndian.Uint64(src[i*8:])))
		}
	}
}

// Widen gives elements as float64, exactly.
func Widen(src []byte, t ElementType) []float64 {
	out := make([]float64, len(src)/t.Size())
	if t == Float64 {
		for i := range out {
			out[i] = math.Float64frombits(binary.LittleEndian.Uint64(src[i*8:]))
		}
		return out
	}
	narrow := make([]float32, len(out))
	load(narrow, src, t)
	for i, x := range narrow {
		out[i] = float64(x)
	}
	return out
}

// widenFloat16 is exact for every bit pattern, subnormals, Inf and NaN included.
func widenFloat16(h uint16) float32 {
	sign := uint32(h>>15) << 31
	exponent := uint32(h>>10) & 0x1f
	mantissa := uint32(h) & 0x3ff
	switch exponent {
	case 0: // mantissa * 2^-24, exact in float32
		return math.Float32frombits(sign | math.Float32bits(float32(mantissa)*0x1p-24))
	case 0x1f:
		return math.Float32frombits(sign | infinityBits | mantissa<<13)
	default:
		return math.Float32frombits(sign | (exponent+127-15)<<23 | mantissa<<13)
	}
}

// Float16Bits is x as float16: it rounds to nearest, ties to even, with subnormals and Inf.
func Float16Bits(x float32) uint16 {
	bits := math.Float32bits(x)
	sign := uint16(bits >> 16 & 0x8000)
	magnitude := bits &^ signBit
	switch {
	case magnitude > infinityBits:
		return sign | 0x7e00
	case magnitude >= 0x477ff000: // 65520, which rounds to 2^16
		return sign | 0x7c00
	case magnitude < 0x38800000: // below 2^-14: a multiple of 2^-24
		// Adding 2^-1, whose last bit is worth 2^-24, rounds there.
		shifted := math.Float32frombits(magnitude) + 0x1p-1
		return sign | uint16(math.Float32bits(shifted)-math.Float32bits(0x1p-1))
	default:
		rounded := magnitude + 0xfff + magnitude>>13&1
		return sign | uint16((rounded-(127-15)<<23)>>13)
	}
}

// BFloat16Bits is x, which is no NaN, as bfloat16: it rounds to nearest, ties to even,
// and may become Inf.
func BFloat16Bits(x float32) uint16 {
	bits := math.Float32bits(x)
	return uint16((bits + 0x7fff + bits>>16&1) >> 16)
}

func roundBFloat16(x float32) float32 {
	return math.Float32frombits(uint32(BFloat16Bits(x)) << 16)
}

// roundFloat16 rounds to float16, ties to even.
func roundFloat16(x float32) float32 {
	if magnitude := math.Float32bits(x) &^ signBit; magnitude-0x38800000 < 0x477ff000-0x38800000 { // below 65520
		return roundNormalFloat16(x)
	}
	return widenFloat16(Float16Bits(x))
}

// roundNormalFloat16 is roundFloat16 from smallestNormalFloat16 on and below 65520.
func roundNormalFloat16(x float32) float32 {
	bits := math.Float32bits(x)
	return math.Float32frombits((bits + 0xfff + bits>>13&1) &^ 0x1fff)
}

// roundScale rounds a scale to the type in which it will be stored.
func roundScale(s float32, dtype ScaleDtype) float32 {
	switch dtype {
	case ScaleFloat16:
		return roundFloat16(s)
	case ScaleBFloat16:
		return roundBFloat16(s)
	default:
		return s
	}
}

// smallest is the smallest scale of a type, a subnormal number.
func (d ScaleDtype) smallest() float32 {
	switch d {
	case ScaleFloat16:
		return smallestFloat16
	case ScaleBFloat16:
		return 0x1p-133
	default:
		return 0x1p-149
	}
}

const (
	smallestFloat16       = 0x1p-24
	smallestNormalFloat16 = 0x1p-14
	largestFloat16        = 65504
)

func isFinite(x float32) bool {
	return math.Float32bits(x)&infinityBits != infinityBits
}
