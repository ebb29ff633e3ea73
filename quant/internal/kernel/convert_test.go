package kernel

import (
	"math"
	"testing"
)

// float16Value is the value of a finite bit pattern, from the definition of
// binary16.
func float16Value(h uint16) float64 {
	sign, exponent, mantissa := 1.0, int(h>>10&0x1f), float64(h&0x3ff)
	if h&0x8000 != 0 {
		sign = -1
	}
	if exponent == 0 {
		return sign * math.Ldexp(mantissa, -24)
	}
	return sign * math.Ldexp(1024+mantissa, exponent-25)
}

func isFiniteFloat16(h uint16) bool { return h&0x7c00 != 0x7c00 }

func TestWidenFloat16EveryPattern(t *testing.T) {
	for i := range 1 << 16 {
		h := uint16(i)
		got := widenFloat16(h)
		if !isFiniteFloat16(h) {
			if isNaN := h&0x3ff != 0; isNaN != (got != got) || !isNaN && !math.IsInf(float64(got), 1-2*int(h>>15)) {
				t.Fatalf("%#04x widens to %g", h, got)
			}
			continue
		}
		if want := float16Value(h); float64(got) != want || math.Signbit(float64(got)) != math.Signbit(want) {
			t.Fatalf("%#04x widens to %g, want %g", h, got, want)
		}
	}
}

func TestNarrowFloat16RoundsToNearestEven(t *testing.T) {
	for i := range 0x7c00 {
		low, high := uint16(i), uint16(i+1)
		lowValue, highValue := float16Value(low), 65536.0
		if isFiniteFloat16(high) {
			highValue = float16Value(high)
		}
		middle := float32((lowValue + highValue) / 2) // exact
		even := low + low&1
		for _, c := range []struct {
			x    float32
			want uint16
		}{
			{float32(lowValue), low},
			{math.Nextafter32(middle, 0), low},
			{middle, even},
			{math.Nextafter32(middle, math.MaxFloat32), high},
		} {
			if got := Float16Bits(c.x); got != c.want {
				t.Fatalf("%g narrows to %#04x, want %#04x", c.x, got, c.want)
			}
			if got := Float16Bits(-c.x); got != c.want|0x8000 {
				t.Fatalf("%g narrows to %#04x, want %#04x", -c.x, got, c.want|0x8000)
			}
		}
	}
	if got := Float16Bits(float32(math.NaN())); isFiniteFloat16(got) || got&0x3ff == 0 {
		t.Errorf("NaN narrows to %#04x", got)
	}
	if got := Float16Bits(math.SmallestNonzeroFloat32); got != 0 {
		t.Errorf("the smallest float32 narrows to %#04x", got)
	}
}

func TestRoundBFloat16RoundsToNearestEven(t *testing.T) {
	for i := range 0x7f7f {
		low := math.Float32frombits(uint32(i) << 16)
		high := math.Float32frombits(uint32(i+1) << 16)
		middle := math.Float32frombits(uint32(i)<<16 | 0x8000)
		even := low
		if i&1 == 1 {
			even = high
		}
		for _, c := range []struct{ x, want float32 }{
			{low, low},
			{math.Nextafter32(middle, 0), low},
			{middle, even},
			{math.Nextafter32(middle, math.MaxFloat32), high},
		} {
			if got := roundBFloat16(c.x); got != c.want {
				t.Fatalf("%g rounds to %g, want %g", c.x, got, c.want)
			}
		}
	}
}
