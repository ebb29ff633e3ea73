package layout

import (
	"math"
	"slices"
	"testing"
)

// TestScaleBytes lays all values of E8M0 and E4M3 out, whose codes are known.
func TestScaleBytes(t *testing.T) {
	t.Parallel()
	exponents, floats := make([]float32, 255), make([]float32, 127)
	wanted := make([]byte, 255)
	for i := range exponents {
		exponents[i], wanted[i] = float32(math.Ldexp(1, i-127)), byte(i)
	}
	for i := range floats {
		mantissa, exponent := float64(i&7), max(i>>3, 1)
		if i >= 8 {
			mantissa += 8
		}
		floats[i] = float32(math.Ldexp(mantissa, exponent-10))
	}
	for part, scales := range map[string][]float32{"e8m0 scales": exponents, "e4m3 scales": floats} {
		rows := len(scales)
		l := Layer{Rows: rows, Groups: 1, RowBytes: 1, BitWidth: 8, Codes: make([]byte, rows),
			Scales: scales, ZeroPoints: make([]float32, rows)}
		out := make([]byte, rows)
		if err := Lay(out, l, Options{Part: part, Threads: 2}); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(out, wanted[:rows]) {
			t.Errorf("%s: got %v", part, out)
		}
		if err := Lay(out[1:], l, Options{Part: part, Threads: 1}); err == nil {
			t.Errorf("%s: bytes for fewer scales are taken", part)
		}
	}
}
