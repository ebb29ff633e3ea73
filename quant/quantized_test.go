package quant

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// groupedLayer is a layer of groups of 8 codes, all of them 0.
type groupedLayer struct{ groups int }

// quantizedTable has layers "0", "1", ... whose groups have these scales and zero-points,
// one list for all layers.
func quantizedTable(layers []groupedLayer, scales, zeroPoints []float32) Table {
	var names []string
	var bitWidths, groupSizes, shape []int64
	shapes, packed, groups := []int32{0}, []int32{0}, []int32{0}
	for i, l := range layers {
		names = append(names, fmt.Sprint(i))
		shape = append(shape, int64(8*l.groups))
		shapes = append(shapes, int32(len(shape)))
		groups = append(groups, groups[i]+int32(l.groups))
		packed = append(packed, packed[i]+int32(2*l.groups))
		bitWidths, groupSizes = append(bitWidths, 2), append(groupSizes, 8)
	}
	codes := rawArray(arrow.BinaryTypes.Binary, len(layers), [][]byte{nil, little(packed...), make([]byte, packed[len(layers)])})
	var t Table
	t.Schema, t.Batches = batchOf(
		[]string{"layer_name", "quantized_data", "scales", "zero_points", "shape", "bit_width", "group_size"},
		texts(names...), codes, lists(floats(scales...), groups...), lists(floats(zeroPoints...), groups...),
		lists(integers(shape...), shapes...), integers(bitWidths...), integers(groupSizes...))
	return t
}

// wantGroups are the messages of the layers' first bad groups, found one by one.
func wantGroups(layers []groupedLayer, scales, zeroPoints []float32) (want []string) {
	finite := func(x float32) bool { return math.Abs(float64(x)) <= math.MaxFloat32 }
	for i, l := range layers {
		for g := range l.groups {
			what := ""
			if s := scales[g]; s == 0 || !finite(s) {
				what = fmt.Sprintf("the scale of group %d is %g, it must be finite and not 0", g, s)
			} else if z := zeroPoints[g]; !finite(z) {
				what = fmt.Sprintf("the zero-point of group %d is %g, it must be finite", g, z)
			}
			if what != "" {
				want = append(want, fmt.Sprintf("Layer '%d': %s", i, what))
				break
			}
		}
		scales, zeroPoints = scales[l.groups:], zeroPoints[l.groups:]
	}
	return want
}

// TestFirstBadGroupIsNamed puts bad values into groups around every border of a
// worker's work, in layers of many sizes: the errors are those of the groups looked
// at one by one, for any number of threads.
func TestFirstBadGroupIsNamed(t *testing.T) {
	layers := []groupedLayer{{3}, {0}, {unitElements - 1}, {1}, {3*unitElements + 5}, {2}, {unitElements}, {2 * unitElements}, {70}}
	total := 0
	var borders []int
	for _, l := range layers {
		for at := 0; at <= l.groups; at += unitElements {
			borders = append(borders, total+at)
		}
		total += l.groups
	}
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	random := rand.New(rand.NewPCG(8, 9))
	scales, zeroPoints := make([]float32, total), make([]float32, total)
	for round := range 40 {
		for i := range scales {
			scales[i], zeroPoints[i] = 1, 0
		}
		for range round % 8 { // none at first
			at := borders[random.IntN(len(borders))] + random.IntN(3) - 1
			if random.IntN(3) == 0 {
				at = random.IntN(total)
			}
			at = min(max(at, 0), total-1)
			if random.IntN(2) == 0 {
				scales[at] = []float32{0, nan, inf, -inf, float32(math.Copysign(0, -1))}[random.IntN(5)]
			}
			if random.IntN(2) == 0 {
				zeroPoints[at] = []float32{nan, inf, -inf}[random.IntN(3)]
			}
		}
		table, want := quantizedTable(layers, scales, zeroPoints), wantGroups(layers, scales, zeroPoints)
		for _, threads := range []int{1, 2, 3, 16} {
			result, err := Dequantize(context.Background(), table.Schema, table.Batches,
				DequantizeOptions{Dtype: WeightFloat32, Threads: threads}, memory.DefaultAllocator)
			var failed LayerErrors
			if errors.As(err, &failed); len(failed) != len(want) {
				t.Fatalf("round %d, %d threads: error %v, want %q", round, threads, err, want)
			}
			for i, e := range failed {
				if e.Message != want[i] || e.Kind != KindCorrupt {
					t.Fatalf("round %d, %d threads: %s %q, want %q", round, threads, e.Kind, e.Message, want[i])
				}
			}
			if err == nil {
				result.Release()
			}
		}
	}
}

// TestReadingStops gives a context that is cancelled already: no row is read.
func TestReadingStops(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	schema, batches := twoLayers()
	table := quantizedTable([]groupedLayer{{1}}, []float32{0}, []float32{0}) // a layer that would fail
	compared := Table{Schema: schema, Batches: batches}
	for name, call := range map[string]func() (*Result, error){
		"quantize": func() (*Result, error) { return Quantize(ctx, schema, batches, defaults, checked(t), nil) },
		"dequantize": func() (*Result, error) {
			return Dequantize(ctx, table.Schema, table.Batches, DequantizeOptions{Dtype: WeightFloat32, Threads: 2}, checked(t))
		},
		"compare": func() (*Result, error) { return Compare(ctx, compared, table, compareDefaults, checked(t)) },
	} {
		if _, err := call(); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}
