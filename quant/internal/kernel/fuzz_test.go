package kernel

import (
	"encoding/binary"
	"math"
	"slices"
	"testing"
)

// FuzzExtremes feeds arbitrary bit patterns as one row of weights: what is not
// refused has finite parameters, decodes to finite values, and lies within a
// step of the weights.
func FuzzExtremes(f *testing.F) {
	patterns := func(values ...float32) []byte {
		var out []byte
		for _, v := range values {
			out = binary.LittleEndian.AppendUint32(out, math.Float32bits(v))
		}
		return out
	}
	tiny := float32(math.SmallestNonzeroFloat32)
	f.Add(patterns(math.MaxFloat32, -math.MaxFloat32), uint8(0))
	f.Add(patterns(math.MaxFloat32, math.Nextafter32(math.MaxFloat32, 0)), uint8(7))
	f.Add(patterns(-math.MaxFloat32, math.Nextafter32(-math.MaxFloat32, 0)), uint8(25))
	f.Add(patterns(tiny), uint8(12))
	f.Add(patterns(tiny, -tiny, 0), uint8(3))
	f.Add(patterns(1e-9, -1e-9), uint8(18))
	f.Add(patterns(1, math.Nextafter32(1, 2)), uint8(29))
	f.Add(patterns(tiny, tiny), uint8(36))
	f.Add(patterns(float32(math.NaN())), uint8(3))
	f.Fuzz(func(t *testing.T, raw []byte, choice uint8) {
		format := Format{
			BitWidth:   allWidths[int(choice)%6],
			ZeroPoint:  ZeroPoint(choice / 6 % 3),
			ScaleDtype: ScaleDtype(choice / 18 % 3),
		}
		n := len(raw) / 4
		if n == 0 {
			return
		}
		block := Block{
			Format: format, Rows: 1, Columns: n, GroupSize: n, Weights: raw[:n*4],
			Packed: make([]byte, RowBytes(n, format.BitWidth)), Scales: make([]float32, 1), ZeroPoints: make([]float32, 1),
			Sums: new(Sums),
		}
		weights := make([]float32, n)
		load(weights, raw, Float32)
		fault := quantizeScalar(&block)
		for i, w := range weights {
			if !isFinite(w) {
				if fault.Kind != NonFinite || fault.Index != i {
					t.Fatalf("%g at %d gives fault %+v", w, i, fault)
				}
				return
			}
		}
		if fault.Kind == ScaleRange && format.ScaleDtype != ScaleFloat32 {
			return
		}
		if fault.Kind != NoFault {
			t.Fatalf("finite weights %v give fault %+v", weights, fault)
		}
		if block.Underflows > 0 {
			checkFlat(t, &block, weights)
			return
		}
		checkDecoded(t, &block, weights)
	})
}

// checkFlat demands that all weights of a group whose scale underflows decode to 0, or to
// one value within their range if that has no 0 and the zero-point may be any.
func checkFlat(t *testing.T, block *Block, weights []float32) {
	t.Helper()
	lo, hi := slices.Min(weights), slices.Max(weights)
	if block.ScaleDtype == ScaleFloat32 || block.Underflows != 1 || block.Scales[0] != 1 {
		t.Fatalf("%+v: %d groups underflow, the first scale is %g", block.Format, block.Underflows, block.Scales[0])
	}
	decoded := make([]float32, len(weights))
	codes := make([]uint8, len(weights))
	unpack(codes, block.Packed, block.BitWidth)
	decodeAll(decoded, codes, 1, block.ZeroPoints[0])
	for _, d := range decoded {
		zero := d == 0 && (block.ZeroPoint != FloatZero || lo <= 0 && hi >= 0)
		if !zero && (block.ZeroPoint != FloatZero || lo <= 0 && hi >= 0 || d != decoded[0] || d < lo || d > hi) {
			t.Fatalf("%v decode to %v", weights, decoded)
		}
	}
}

func checkDecoded(t *testing.T, block *Block, weights []float32) {
	t.Helper()
	scale, zeroPoint := block.Scales[0], block.ZeroPoints[0]
	if !isFinite(scale) || scale == 0 || block.ZeroPoint != SymmetricZero && scale < 0 {
		t.Fatalf("scale %g", scale)
	}
	if !isFinite(zeroPoint) || zeroPoint == 0 && math.Signbit(float64(zeroPoint)) {
		t.Fatalf("zero-point %g", zeroPoint)
	}
	codes := make([]uint8, len(weights))
	unpack(codes, block.Packed, block.BitWidth)
	// A rounded scale may fall short of the range by half a unit of its last
	// place for each code; a float zero-point far from 0 has no finer steps
	// than float32 has there.
	largest := 0.0
	for _, w := range weights {
		largest = math.Max(largest, math.Abs(float64(w)))
	}
	bound := math.Abs(float64(scale))*1.01 + largest*0x1p-22
	switch block.ScaleDtype {
	case ScaleFloat16: // also subnormal scales, down to half of what was asked for
		bound += math.Abs(float64(scale)) * float64(block.MaxCode()) * 0.51
	case ScaleBFloat16:
		bound += math.Abs(float64(scale)) * float64(block.MaxCode()) * 0.51
	}
	for i, w := range weights {
		d := decode(codes[i], scale, zeroPoint)
		if !isFinite(d) {
			t.Fatalf("%g has code %d, which decodes to %g with scale %g and zero-point %g", w, codes[i], d, scale, zeroPoint)
		}
		if e := math.Abs(float64(d) - float64(w)); e > bound {
			t.Fatalf("%g decodes to %g: off by %g, over %g (scale %g, zero-point %g)", w, d, e, bound, scale, zeroPoint)
		}
	}
}
