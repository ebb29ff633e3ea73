package quant

import (
	"context"
	"slices"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
)

// TestProgressWithinLayers has parts of a large layer, and small ones: all bytes
// are told, and each layer once, when all that it has is done.
func TestProgressWithinLayers(t *testing.T) {
	const small, large = 100, 5 * unitElements
	weights := make([]float32, 2*small+large)
	for i := range weights {
		weights[i] = float32(i % 7)
	}
	schema, batches := batchOf([]string{"layer_name", "weights"},
		texts("a", "large", "b", "empty"), lists(floats(weights...), 0, small, small+large, 2*small+large, 2*small+large))
	longGroups := defaults
	longGroups.GroupSize = WholeRow
	for name, o := range map[string]Options{"groups": defaults, "long groups": longGroups, "blocks": sharedOptions(RoundToNearest, Blocks)} {
		t.Run(name, func(t *testing.T) {
			progressOf(t, schema, batches, o, int64(4*len(weights)))
		})
	}
}

func progressOf(t *testing.T, schema *arrow.Schema, batches []arrow.RecordBatch, o Options, want int64) {
	var finished []string
	var parts int
	var before int64
	result, err := Quantize(context.Background(), schema, batches, o, checked(t), func(layer *string, done, total int64) {
		if done < before || total != want {
			t.Errorf("%d of %d bytes after %d, want %d in all", done, total, before, want)
		}
		before = done
		if layer == nil {
			parts++
		} else {
			finished = append(finished, string([]byte(*layer)))
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	result.Release()
	slices.Sort(finished)
	if !slices.Equal(finished, []string{"a", "b", "empty", "large"}) || parts < 3 || before != want {
		t.Errorf("%q finished after %d parts and %d bytes, want %d", finished, parts, before, want)
	}
}
