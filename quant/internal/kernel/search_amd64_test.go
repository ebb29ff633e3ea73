package kernel

import (
	"bytes"
	"testing"
)

// TestCodesBeyondIntegers has a search find scales with which some weights
// become integers of more than 32 bits before they are clipped.
func TestCodesBeyondIntegers(t *testing.T) {
	weights := make([]float32, 64)
	for i := range weights {
		weights[i] = float32(i-32) * 1e-3
	}
	weights[5], weights[50] = 3e4, -3e4
	for _, k := range All()[1:] {
		v := map[string]*vectorSet{"avx2": &avx2, "avx512": &avx512}[k.Name]
		for scale := float32(1e-2); scale > 1e-9; scale /= 7 {
			p := Parameters{Scale: scale, inverse: 1 / scale, ZeroPoint: 7}
			b := Block{
				Format: Format{BitWidth: 4}, Rows: 1, Columns: 64, GroupSize: 64, Weights: make([]byte, 4*64),
				Packed: make([]byte, 32), Scales: make([]float32, 1), ZeroPoints: make([]float32, 1),
			}
			store(b.Weights, weights, Float32)
			s, f := new(vectorScratch), &search{count: 1, n: 64}
			f.searched[0], f.lo[0], f.hi[0] = true, -3e4, 3e4
			f.lanes.bestScale[0], f.lanes.bestZeroPoint[0] = p.Scale, p.ZeroPoint
			f.store(&b, 0)
			v.codeRow(s, f, &b, position{}, 64)

			codes, want := make([]uint8, 64), make([]byte, 32)
			code(codes, weights, p, 15)
			pack(want, codes, 4)
			if !bytes.Equal(b.Packed, want) || b.Scales[0] != scale || b.ZeroPoints[0] != 7 {
				t.Fatalf("scale %g: codes\n%x, want\n%x", scale, b.Packed, want)
			}
		}
	}
}
