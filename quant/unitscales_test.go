package quant

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/pyarrowquant/pyarrowquant/quant/internal/kernel"
)

// TestUnitLayerScales has scales of NVFP4 that are E4M3 by themselves, on all kernels; what
// is beyond that is the error of its group.
func TestUnitLayerScales(t *testing.T) {
	levels := kernel.Encoding(kernel.FP8).Describe().Levels
	weights := normal(5, 700)
	for i := range weights {
		weights[i] /= 50
	}
	for _, method := range []Method{RoundToNearest, MeanSquares} {
		o := sharedOptions(method, 16)
		o.Encoding, o.BitWidth, o.UnitLayerScales = Encoding(kernel.NVFP4), 4, true
		schema, batches := matrixTable(5, 700, weights)
		r := mustQuantize(t, schema, batches, o, checked(t))
		if got := listOf32(t, r, columnSuperScales); !slices.Equal(got, []float32{1}) {
			t.Errorf("the scale of the layer is %v", got)
		}
		for _, scale := range listOf32(t, r, columnScales) {
			if !slices.Contains(levels, scale) {
				t.Fatalf("%g is not E4M3", scale)
			}
		}
		r.Release()
		large := slices.Clone(weights)
		large[1440] = -2689 // 6 * 448 is the most
		schema, batches = matrixTable(5, 700, large)
		_, err := Quantize(context.Background(), schema, batches, o, checked(t), nil)
		var failed LayerErrors
		if !errors.As(err, &failed) || failed[0].Kind != KindScaleRange || failed[0].Index == nil || *failed[0].Index != 1432 {
			t.Errorf("a weight that is too large: %v", err)
		}
	}
}
