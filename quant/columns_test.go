package quant

import (
	"context"
	"errors"
	"math"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// TestOffsetsThatOverflow has fixed-size lists begin so far behind their values that
// the products with the size of a list are within them again.
func TestOffsetsThatOverflow(t *testing.T) {
	const size = 8
	listType := arrow.FixedSizeListOf(size, arrow.PrimitiveTypes.Float32)
	for _, offset := range []int{0, 1, 2, math.MaxInt / size, 1 << 60, 1 << 61, 1<<61 + 1, 1<<62 - 1, 1 << 62, math.MaxInt - 1} {
		values := floats(make([]float32, 2*size)...)
		lists := array.MakeFromData(array.NewData(listType, 1, []*memory.Buffer{nil}, []arrow.ArrayData{values.Data()}, 0, offset))
		schema, batches := batchOf([]string{"layer_name", "weights"}, texts("a"), lists)
		result, err := Quantize(context.Background(), schema, batches, defaults, checked(t), nil)
		var failed LayerErrors
		switch {
		case offset < 2 && err == nil:
			result.Release()
		case offset < 2 || !errors.As(err, &failed) || failed[0].Kind != KindCorrupt:
			t.Errorf("offset %d: error %v", offset, err)
		}
	}
}
