package quant

import (
	"context"
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
)

// manyLayers have rows and columns as given in turn, some with weights that are tiny, where that
// is asked for. Their weights follow each other, but for a gap now and then.
func manyLayers(shapes [][]int64, layers int, tiny bool) (names []string, weights [][]float32, shape [][]int64) {
	for i := range layers {
		each := shapes[i/7%len(shapes)]
		values := make([]float32, each[0]*each[1])
		for j := range values {
			values[j] = float32(math.Sin(float64(i*1000+j)*1.7) * float64(1+j%11))
			if tiny && i%5 == 3 {
				values[j] *= 1e-12
			}
		}
		names, weights, shape = append(names, fmt.Sprintf("layer %04d", i)), append(weights, values), append(shape, each)
	}
	return names, weights, shape
}

// layersBatch puts the layers into one list column, with a weight between some of them.
func layersBatch(names []string, weights [][]float32, shapes [][]int64) (*arrow.Schema, []arrow.RecordBatch) {
	var all []float32
	var sizes []int64
	var starts, counts, shapeOffsets []int32
	shapeOffsets = append(shapeOffsets, 0)
	for i, values := range weights {
		if i%13 == 12 {
			all = append(all, 1e9)
		}
		starts, counts = append(starts, int32(len(all))), append(counts, int32(len(values)))
		all, sizes = append(all, values...), append(sizes, shapes[i]...)
		shapeOffsets = append(shapeOffsets, int32(len(sizes)))
	}
	child := floats(all...)
	views := rawArray(arrow.ListViewOf(child.DataType()), len(names), [][]byte{nil, little(starts...), little(counts...)}, child)
	return batchOf([]string{"layer_name", "weights", "shape"}, texts(names...), views, lists(integers(sizes...), shapeOffsets...))
}

// TestSmallLayersAreAsAlone compares layers that may be coded together with each by itself.
func TestSmallLayersAreAsAlone(t *testing.T) {
	shapes := [][]int64{{1, 256}, {3, 100}, {1, 1000}, {2, 5}}
	for method := RoundToNearest; method <= HalfQuadratic; method++ {
		for _, o := range []Options{
			{Settings: Settings{BitWidth: 4, GroupSize: 128, ZeroPoint: IntegerZero}},
			{Settings: Settings{BitWidth: 3, GroupSize: 32, ZeroPoint: FloatZero, ScaleDtype: ScaleFloat16}},
			{Settings: Settings{BitWidth: 8, GroupSize: WholeRow, ZeroPoint: IntegerZero}, Metrics: true},
		} {
			o.Method, o.Threads = method, 2
			names, weights, sizes := manyLayers(shapes, 120, o.ScaleDtype == ScaleFloat16)
			weights[50][5], weights[77][0] = float32(math.NaN()), float32(math.Inf(1))
			o.ContinueOnError = true
			schema, batches := layersBatch(names, weights, sizes)
			together := mustQuantize(t, schema, batches, o, checked(t))
			var rows []string
			var skipped LayerErrors
			var underflows []Underflow
			for i := range names {
				schema, batches := layersBatch(names[i:i+1], weights[i:i+1], sizes[i:i+1])
				alone := mustQuantize(t, schema, batches, o, checked(t))
				rows, underflows = append(rows, rowTexts(alone)...), append(underflows, alone.Underflows...)
				skipped = append(skipped, alone.Skipped...)
				alone.Release()
			}
			if got := rowTexts(together); !slices.Equal(got, rows) {
				t.Errorf("%v %+v: other rows", method, o.Settings)
			}
			if !slices.Equal(together.Underflows, underflows) || o.ScaleDtype == ScaleFloat16 && len(underflows) == 0 {
				t.Errorf("%v %+v: underflows %v, want %v", method, o.Settings, together.Underflows, underflows)
			}
			if len(together.Skipped) != 2 || len(skipped) != 2 || *together.Skipped[0].Index != *skipped[0].Index || *together.Skipped[1].Index != *skipped[1].Index {
				t.Errorf("%v %+v: skipped %v, want %v", method, o.Settings, together.Skipped, skipped)
			}
			together.Release()
		}
	}
}

// TestSmallLayersAreJoined tells how many calls of a kernel it takes.
func TestSmallLayersAreJoined(t *testing.T) {
	names, weights, sizes := manyLayers([][]int64{{1, 256}, {1, 8}}, 28, false)
	schema, batches := layersBatch(names, weights, sizes)
	columns, err := resolveWeights(schema, nil)
	if err != nil {
		t.Fatal(err)
	}
	o := defaults
	layers, _, err := readLayers(context.Background(), batches, columns, &o)
	if err != nil {
		t.Fatal(err)
	}
	w := quantizer{quantization: newQuantization(layers, o, maxOffset)}
	var got []int
	for first := 0; first < len(layers); {
		n := w.joinable(first, len(layers)-first)
		got, first = append(got, n), first+n
	}
	if want := []int{7, 5, 2, 7, 4, 3}; !slices.Equal(got, want) { // gaps are before 12 and 25
		t.Errorf("got %v, want %v", got, want)
	}
}
