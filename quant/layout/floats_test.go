package layout

import (
	"bytes"
	"errors"
	"math"
	"testing"

	"github.com/pyarrowquant/pyarrowquant/quant"
)

// TestScaleBytes has scales of known bytes, and more rows than one worker takes.
func TestScaleBytes(t *testing.T) {
	powers := map[float32]byte{1: 127, 0.5: 126, 4: 129, float32(math.Ldexp(1, -127)): 0, float32(math.Ldexp(1, 127)): 254}
	small := map[float32]byte{0: 0, 1.0 / 512: 1, 1.0 / 64: 8, 1: 56, 1.5: 60, 448: 126}
	for name, test := range map[string]struct {
		options Options
		bytes   map[float32]byte
	}{
		"exponents":    {Options{Part: "exponents"}, powers},
		"small scales": {Options{Part: "small scales", LayerScale: 0.25}, small},
	} {
		for scale, want := range test.bytes {
			if test.options.LayerScale > 0 {
				scale *= test.options.LayerScale
			}
			rows := 3 * leastBytes / 4
			l := Layer{Rows: rows, Groups: 1, BitWidth: 4, Scales: make([]float32, rows), ZeroPoints: make([]float32, rows)}
			for i := range l.Scales {
				l.Scales[i] = scale
			}
			out := make([]byte, rows)
			test.options.Threads = 4
			if err := Lay(out, l, test.options); err != nil || !bytes.Equal(out, bytes.Repeat([]byte{want}, rows)) {
				t.Errorf("%s of %g: %d, error %v, want %d", name, scale, out[0], err, want)
			}
		}
	}
}

func TestSignedCodes(t *testing.T) {
	l := Layer{Rows: 2, Groups: 1, RowBytes: 2, BitWidth: 8, Codes: []byte{0, 127, 128, 255}, Scales: make([]float32, 2), ZeroPoints: make([]float32, 2)}
	out := make([]byte, 4)
	if err := SignedCodes(out, l, 1); err != nil || !bytes.Equal(out, []byte{0x80, 0xff, 0, 0x7f}) {
		t.Errorf("%v, error %v", out, err)
	}
}

func TestFloatsRefuse(t *testing.T) {
	l := Layer{Rows: 1, Groups: 1, RowBytes: 8, BitWidth: 4, Codes: make([]byte, 8), Scales: []float32{1}, ZeroPoints: []float32{0}}
	broken := l
	broken.Groups = 2
	for _, test := range []struct {
		layer   Layer
		options Options
		bytes   int
	}{
		{broken, Options{Part: "exponents"}, 2},
		{broken, Options{Part: "signed codes"}, 8},
		{l, Options{Part: "exponents"}, 2},
		{l, Options{Part: "small scales", LayerScale: 1}, 0},
		{l, Options{Part: "small scales"}, 1},
		{l, Options{Part: "small scales", LayerScale: float32(math.NaN())}, 1},
		{l, Options{Part: "signed codes"}, 8},
		{Layer{Rows: 1, Groups: 1, RowBytes: 1, BitWidth: 8, Codes: []byte{1}, Scales: []float32{1}, ZeroPoints: []float32{0}}, Options{Part: "signed codes"}, 2},
	} {
		test.options.Threads = 1
		if err := Lay(make([]byte, test.bytes), test.layer, test.options); !errors.Is(err, quant.ErrArgument) {
			t.Errorf("%v: error %v", test.options, err)
		}
	}
}
