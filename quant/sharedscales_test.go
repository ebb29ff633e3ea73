package quant

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/pyarrowquant/pyarrowquant/quant/internal/kernel"
)

var sharedSizes = []GroupSize{WholeTensor, Blocks}

// sharedOptions are of a method and what shares a scale.
func sharedOptions(method Method, size GroupSize) Options {
	o := defaults
	o.Encoding, o.BitWidth, o.GroupSize, o.Method, o.Metrics = Encoding(kernel.FP8), 8, size, method, true
	return o
}

// matrixTable is a table of one layer.
func matrixTable(rows, columns int, weights []float32) (*arrow.Schema, []arrow.RecordBatch) {
	return batchOf([]string{"layer_name", "weights", "shape"}, texts("w"), lists(floats(weights...), 0, int32(len(weights))),
		lists(integers(int64(rows), int64(columns)), 0, 2))
}

func normal(rows, columns int) []float32 {
	random := rand.New(rand.NewPCG(uint64(rows), uint64(columns)))
	weights := make([]float32, rows*columns)
	for i := range weights {
		weights[i] = float32(random.NormFloat64())
	}
	return weights
}

func listOf32(t *testing.T, r *Result, column string) []float32 {
	t.Helper()
	lists := r.Batches[0].Column(slices.Index(columnNames(r.Schema), column)).(*array.List)
	return lists.ListValues().(*array.Float32).Float32Values()
}

// area is what has one scale: of the rows and columns of a matrix, those from the first on.
type area struct{ row, column, rows, columns int }

func areas(size GroupSize, rows, columns int) (all []area) {
	if size == WholeTensor {
		return []area{{0, 0, rows, columns}}
	}
	for row := 0; row < rows; row += 128 {
		for column := 0; column < columns; column += 128 {
			all = append(all, area{row, column, min(128, rows-row), min(128, columns-column)})
		}
	}
	return all
}

// TestSharedScales has the scale of each tensor and block made of its largest weight alone, and
// standing wherever it is needed.
func TestSharedScales(t *testing.T) {
	for _, shape := range [][2]int{{1, 1}, {5, 700}, {128, 128}, {129, 257}, {300, 700}, {2, 150_000}} {
		rows, columns := shape[0], shape[1]
		weights := normal(rows, columns)
		schema, batches := matrixTable(rows, columns, weights)
		for _, size := range sharedSizes {
			r := mustQuantize(t, schema, batches, sharedOptions(RoundToNearest, size), checked(t))
			var want []float32
			spread := make([]float32, rows*kernel.Groups(columns, newGrouped(matrix{rows, columns}, size.inRow()).groupSize))
			perRow := len(spread) / rows
			for _, a := range areas(size, rows, columns) {
				largest := float32(0)
				for row := a.row; row < a.row+a.rows; row++ {
					for _, w := range weights[row*columns+a.column:][:a.columns] {
						largest = max(largest, w, -w)
					}
				}
				exponent := math.Floor(math.Log2(float64(largest)))
				scale := largest * float32(math.Exp2(-exponent)) / 448 * float32(math.Exp2(exponent))
				want = append(want, scale)
				for row := a.row; row < a.row+a.rows; row++ {
					spread[row*perRow+a.column/128] = scale
				}
			}
			if got := listOf32(t, r, columnSuperScales); !slices.Equal(got, want) {
				t.Errorf("%v, %s: scales %v, want %v", shape, size, got, want)
			}
			if !slices.Equal(listOf32(t, r, columnScales), spread) {
				t.Errorf("%v, %s: scales are not where they are needed", shape, size)
			}
			r.Release()
		}
	}
}

// TestSharedScalesAlike demands the same bytes of all kernels and numbers of threads, with
// importance and without, of a search that is never worse.
func TestSharedScalesAlike(t *testing.T) {
	for _, shape := range [][2]int{{0, 5}, {1, 7}, {130, 140}, {300, 700}, {2, 150_001}} {
		rows, columns := shape[0], shape[1]
		schema, batches := matrixTable(rows, columns, normal(rows, columns))
		importance := make([]float32, columns)
		for i := range importance {
			importance[i] = float32(i%3) + 0.1
		}
		weighed, withImportance := batchOf([]string{"layer_name", "weights", "shape", "importance"},
			append(slices.Clone(batches[0].Columns()), lists(floats(importance...), 0, int32(columns)))...)
		for _, size := range sharedSizes {
			errorOf := map[Method]float64{}
			for _, method := range []Method{RoundToNearest, MeanSquares} {
				for i, table := range []Table{{schema, batches}, {weighed, withImportance}} {
					var first *Result
					for _, k := range kernel.All() {
						for _, threads := range []int{1, 5} {
							o := sharedOptions(method, size)
							o.Kernel, o.Threads = Kernel{&k}, threads
							r := mustQuantize(t, table.Schema, table.Batches, o, checked(t))
							if first == nil {
								first = r
								defer first.Release()
								continue
							}
							if !array.RecordEqual(r.Batches[0], first.Batches[0]) {
								t.Errorf("%v, %s, method %s, %s: results differ", shape, size, method, k.Name)
							}
							r.Release()
						}
					}
					if i == 0 {
						errorOf[method] = first.Batches[0].Column(slices.Index(columnNames(first.Schema), metricColumns[0])).(*array.Float64).Value(0)
					}
				}
			}
			if errorOf[MeanSquares] > errorOf[RoundToNearest] || size == Blocks && rows*columns > 1000 && errorOf[MeanSquares] == errorOf[RoundToNearest] {
				t.Errorf("%v, %s: the search leaves %g, round-to-nearest %g", shape, size, errorOf[MeanSquares], errorOf[RoundToNearest])
			}
		}
	}
}

// TestSharedScalesMeasured gives the errors alone, which are those of a result.
func TestSharedScalesMeasured(t *testing.T) {
	schema, batches := matrixTable(300, 700, normal(300, 700))
	for _, size := range sharedSizes {
		o := sharedOptions(MeanSquares, size)
		whole := mustQuantize(t, schema, batches, o, checked(t))
		o.MeasureOnly = true
		measured := mustQuantize(t, schema, batches, o, checked(t))
		for _, name := range metricColumns {
			values := [2]float64{}
			for i, r := range []*Result{whole, measured} {
				values[i] = r.Batches[0].Column(slices.Index(columnNames(r.Schema), name)).(*array.Float64).Value(0)
			}
			if values[0] != values[1] {
				t.Errorf("%s, %s: %v", size, name, values)
			}
		}
		whole.Release()
		measured.Release()
	}
}

// TestSharedScalesFaults names the first bad weight by its index within the layer.
func TestSharedScalesFaults(t *testing.T) {
	for _, shape := range [][2]int{{300, 700}, {2, 150_000}, {40, 50}} {
		rows, columns := shape[0], shape[1]
		first := (rows-1)*columns + columns*2/3
		for _, size := range sharedSizes {
			for _, method := range []Method{RoundToNearest, MeanSquares} {
				for _, bad := range []float64{math.NaN(), math.Inf(-1)} {
					weights := normal(rows, columns)
					weights[first] = float32(bad)
					weights[len(weights)-1] = float32(math.Inf(1))
					schema, batches := matrixTable(rows, columns, weights)
					_, err := Quantize(context.Background(), schema, batches, sharedOptions(method, size), checked(t), nil)
					var failed LayerErrors
					if want := fmt.Sprintf("at index %d (", first); !errors.As(err, &failed) || !strings.Contains(failed[0].Message, want) {
						t.Errorf("%v, %s: error %v, want %q", shape, size, err, want)
					}
				}
			}
		}
	}
}

// TestSharedScalesExtremes has huge and tiny weights decode to finite numbers.
func TestSharedScalesExtremes(t *testing.T) {
	for _, unit := range []float32{math.MaxFloat32, 1e38, 1e-30, 1e-44, 0} {
		weights := make([]float32, 150*300)
		for i := range weights {
			weights[i] = unit * (float32(i%301-150) / 150)
		}
		schema, batches := matrixTable(150, 300, weights)
		for _, size := range sharedSizes {
			for _, method := range []Method{RoundToNearest, MeanSquares} {
				allocator := checked(t)
				r := mustQuantize(t, schema, batches, sharedOptions(method, size), allocator)
				decoded, err := Dequantize(context.Background(), r.Schema, r.Batches, DequantizeOptions{Threads: 2}, allocator)
				if err != nil {
					t.Fatal(err)
				}
				for i, w := range decoded.Batches[0].Column(1).(*array.List).ListValues().(*array.Float32).Float32Values() {
					bound := float64(unit) / 14
					if unit < 1e-40 { // whose scale float32 rounds to 0
						bound = float64(unit)
					}
					if !(math.Abs(float64(w)-float64(weights[i])) <= bound) {
						t.Fatalf("%g, %s: %g at %d decodes to %g", unit, size, weights[i], i, w)
					}
				}
				decoded.Release()
				r.Release()
			}
		}
	}
}

// TestSharedScalesUnderflow counts scales that float16 rounds to 0, one a tensor or block. The
// search keeps weights that the smallest scale still has levels for.
func TestSharedScalesUnderflow(t *testing.T) {
	for _, test := range []struct {
		unit   float32
		method Method
		size   GroupSize
		want   int
	}{
		{1e-9, RoundToNearest, WholeTensor, 1},
		{1e-9, RoundToNearest, Blocks, 4},
		{1e-9, MeanSquares, WholeTensor, 0},
		{1e-9, MeanSquares, Blocks, 0},
		{1e-14, MeanSquares, WholeTensor, 1},
		{1e-14, MeanSquares, Blocks, 4},
	} {
		weights := normal(200, 200)
		for i := range weights {
			weights[i] *= test.unit
		}
		schema, batches := matrixTable(200, 200, weights)
		o := sharedOptions(test.method, test.size)
		o.ScaleDtype = ScaleFloat16
		r := mustQuantize(t, schema, batches, o, checked(t))
		groups := 0
		for _, u := range r.Underflows {
			groups += u.Groups
		}
		if groups != test.want {
			t.Errorf("%v: %v", test, r.Underflows)
		}
		r.Release()
	}
}

// TestSharedScalesAreChecked changes scales of results.
func TestSharedScalesAreChecked(t *testing.T) {
	schema, batches := matrixTable(150, 300, normal(150, 300))
	first := map[GroupSize]int{WholeTensor: 0, Blocks: 128*3 + 2} // of the last scale
	for _, size := range sharedSizes {
		r := mustQuantize(t, schema, batches, sharedOptions(RoundToNearest, size), checked(t))
		scales := listOf32(t, r, columnScales)
		shared := listOf32(t, r, columnSuperScales)
		for want, values := range map[string][]float32{
			fmt.Sprintf("the layer needs %d", len(shared)): append(slices.Clone(shared), 1),
			fmt.Sprintf("the scale of group %d is %g, which encoding 'fp8' does not store", first[size], scales[len(scales)-1]): append(slices.Clone(shared[:len(shared)-1]), 1),
		} {
			columns := slices.Clone(r.Batches[0].Columns())
			columns[slices.Index(columnNames(r.Schema), columnSuperScales)] = lists(floats(values...), 0, int32(len(values)))
			broken := array.NewRecordBatch(r.Schema, columns, 1)
			checkRefused(t, size.String(), r.Schema, broken, want)
		}
		r.Release()
	}
}

// TestGroupSizes reads and writes group sizes as JSON.
func TestGroupSizes(t *testing.T) {
	for text, want := range map[string]GroupSize{"64": 64, "-1": WholeRow, `"tensor"`: WholeTensor, `"block"`: Blocks} {
		var got GroupSize
		if err := got.UnmarshalJSON([]byte(text)); err != nil || got != want {
			t.Errorf("%s is read as %d, error %v", text, got, err)
		}
		if again, err := want.MarshalJSON(); err != nil || string(again) != text {
			t.Errorf("%d is written as %s, error %v", want, again, err)
		}
	}
	var g GroupSize
	if err := g.UnmarshalJSON([]byte(`"rows"`)); !errors.Is(err, ErrArgument) || !strings.Contains(err.Error(), "Invalid group_size: 'rows'") {
		t.Errorf("error %v", err)
	}
	if err := g.UnmarshalJSON([]byte("-2")); !errors.Is(err, ErrArgument) || !strings.Contains(err.Error(), "Invalid group_size: -2") {
		t.Errorf("error %v", err)
	}
	if err := g.UnmarshalJSON([]byte("1.5")); err == nil {
		t.Error("1.5 is read")
	}
	for want, s := range map[string]Settings{
		"Invalid group_size: tensor. Encoding 'int' has groups of columns": {BitWidth: 4, GroupSize: WholeTensor},
		"Invalid group_size: block. Encoding 'nf4' has 64":                 {BitWidth: 4, GroupSize: Blocks, Encoding: Encoding(kernel.NF4)},
	} {
		if err := s.validate(); !errors.Is(err, ErrArgument) || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}
