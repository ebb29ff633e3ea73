package quant

import (
	"context"
	"errors"
	"math"
	"slices"
	"testing"

	"github.com/pyarrowquant/pyarrowquant/quant/internal/kernel"
)

// threeLayers are of 2, 4 and 8 times the same weights.
func threeLayers(t *testing.T, layerScales []float32, firstRow int64) (*Result, error) {
	weights := normal(2, 64)
	var all []float32
	for i := range 3 {
		for _, w := range weights {
			all = append(all, w*float32(int(2)<<i))
		}
	}
	schema, batches := batchOf([]string{"layer_name", "weights"}, texts("c", "b", "a"), lists(floats(all...), 0, 128, 256, 384))
	o := defaults
	o.Encoding, o.BitWidth, o.GroupSize, o.Sort = Encoding(kernel.NVFP4), 4, 16, true
	o.LayerScales, o.FirstRow = layerScales, firstRow
	return Quantize(context.Background(), schema, batches, o, checked(t), nil)
}

// TestLeastLayerScales gives layers at least these scales, by their rows of the input.
func TestLeastLayerScales(t *testing.T) {
	scalesOf := func(layerScales []float32, firstRow int64) []float32 {
		r, err := threeLayers(t, layerScales, firstRow)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Release()
		return slices.Clone(listOf32(t, r, columnSuperScales))
	}
	own := scalesOf(nil, 0) // sorted by name
	if own[0] != 2*own[1] || own[1] != 2*own[2] {
		t.Fatalf("scales %v", own)
	}
	for _, firstRow := range []int64{0, 7} {
		if got := scalesOf([]float32{own[0], 0, own[2]}, firstRow); !slices.Equal(got, []float32{own[0], own[1], own[0]}) {
			t.Errorf("scales %v, alone %v", got, own)
		}
	}
}

func TestLayerScalesRefuse(t *testing.T) {
	for _, scales := range [][]float32{{1}, {1, 1, -1}, {1, 1, float32(math.NaN())}, {1, 1, float32(math.Inf(1))}} {
		if _, err := threeLayers(t, scales, 0); !errors.Is(err, ErrArgument) {
			t.Errorf("%v: error %v", scales, err)
		}
	}
}
