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
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/pyarrowquant/pyarrowquant/quant/internal/kernel"
)

// allEncodings are settings of each encoding, "int" included, then those whose rows share scales.
func allEncodings(method Method) (all []Settings) {
	for i := range encodingNames {
		s := defaults.Settings
		s.Encoding, s.Method = Encoding(i), method
		if d := s.Encoding.describe(); d != nil {
			s.BitWidth, s.GroupSize = d.BitWidth, GroupSize(d.GroupSize)
			if d.GroupSize == 0 {
				s.GroupSize = WholeRow
			}
		}
		all = append(all, s)
	}
	for _, size := range []GroupSize{WholeTensor, Blocks} {
		s := all[kernel.FP8]
		s.GroupSize = size
		all = append(all, s)
	}
	return all
}

// encodedTable has a layer of so many rows and columns for each of the settings.
func encodedTable(count, rows, columns int) (*arrow.Schema, []arrow.RecordBatch) {
	random := rand.New(rand.NewPCG(uint64(rows), uint64(columns)))
	values, offsets, shape, shapes := []float32{}, []int32{0}, []int64{}, []int32{0}
	var names []string
	for i := range count {
		for range rows * columns {
			values = append(values, float32(random.NormFloat64())/16)
		}
		offsets = append(offsets, int32(len(values)))
		shape = append(shape, int64(rows), int64(columns))
		shapes = append(shapes, int32(len(shape)))
		names = append(names, fmt.Sprintf("layer %02d", i))
	}
	return batchOf([]string{"layer_name", "weights", "shape"}, texts(names...), lists(floats(values...), offsets...), lists(integers(shape...), shapes...))
}

// encodedOptions give each row of encodedTable the settings of its number.
func encodedOptions(settings []Settings) Options {
	o := defaults
	o.Choices, o.Metrics = settings, true
	for i := range settings {
		o.Rows = append(o.Rows, int32(i))
	}
	return o
}

// TestEncodingsTogether has one table of all encodings: it decodes with the errors that
// were measured while it was made, whatever the number of threads, and row by row.
func TestEncodingsTogether(t *testing.T) {
	for _, shape := range [][2]int{{0, 8}, {1, 1}, {3, 40}, {2, 256}, {5, 700}, {3, 70_000}, {130, 140}, {300, 700}} {
		for _, method := range []Method{RoundToNearest, MeanSquares} {
			settings := allEncodings(method)
			schema, batches := encodedTable(len(settings), shape[0], shape[1])
			allocator := checked(t)
			o := encodedOptions(settings)
			result := mustQuantize(t, schema, batches, o, allocator)
			o.Threads = 1
			again := mustQuantize(t, schema, batches, o, allocator)
			if !array.RecordEqual(result.Batches[0], again.Batches[0]) {
				t.Errorf("%v: results differ between one thread and two", shape)
			}
			again.Release()
			compared, err := Compare(context.Background(), Table{schema, batches}, Table{result.Schema, result.Batches}, compareDefaults, allocator)
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range metricColumns {
				at := slices.Index(columnNames(result.Schema), name)
				want := result.Batches[0].Column(at).(*array.Float64).Float64Values()
				got := compared.Batches[0].Column(slices.Index(columnNames(compared.Schema), name)).(*array.Float64).Float64Values()
				if !slices.EqualFunc(got, want, near) {
					t.Errorf("%v, %s: compared %v, measured %v", shape, name, got, want)
				}
			}
			compared.Release()
			for row := range settings {
				part := result.Batches[0].NewSlice(int64(row), int64(row)+1)
				decoded, err := Dequantize(context.Background(), result.Schema, []arrow.RecordBatch{part},
					DequantizeOptions{Dtype: WeightFloat32, Threads: 1}, allocator)
				if err != nil {
					t.Fatalf("%v, %s: %v", shape, settings[row].Encoding, err)
				}
				decoded.Release()
				part.Release()
			}
			result.Release()
		}
	}
}

// near allows for sums in another order: fp8 has whole rows as groups here, which are
// measured as one and compared in parts.
func near(got, want float64) bool { return math.Abs(got-want) <= 1e-12*math.Abs(want) }

func columnNames(schema *arrow.Schema) (names []string) {
	for _, f := range schema.Fields() {
		names = append(names, f.Name)
	}
	return names
}

// TestEncodingsAreChecked changes single columns of a table of all encodings.
func TestEncodingsAreChecked(t *testing.T) {
	settings := allEncodings(MeanSquares)
	schema, batches := encodedTable(len(settings), 2, 300)
	result := mustQuantize(t, schema, batches, encodedOptions(settings), checked(t))
	defer result.Release()
	row := int(kernel.Q4K)
	for column, changes := range map[string]map[string]func(*arrow.Field) arrow.Array{
		columnEncoding: {
			"encoding 'q9_k' is unknown":                func(*arrow.Field) arrow.Array { return texts("q9_k") },
			"bit_width is 4, encoding 'q6_k' has 6":     func(*arrow.Field) arrow.Array { return texts("q6_k") },
			"group_size is 32, encoding 'nf4' has 64":   func(*arrow.Field) arrow.Array { return texts("nf4") },
			"levels has 0 values, encoding 'mxfp4' has": func(*arrow.Field) arrow.Array { return texts("mxfp4") },
		},
		columnLevels: {
			"levels has 3 values, encoding 'q4_k' has 0": func(*arrow.Field) arrow.Array { return lists(floats(1, 2, 3), 0, 3) },
		},
		columnSuperScales: {
			"super_scales has 1 values, the layer needs 4": func(*arrow.Field) arrow.Array { return lists(floats(1), 0, 1) },
			"which encoding 'q4_k' does not store":         func(*arrow.Field) arrow.Array { return lists(floats(3, 3, 3, 3), 0, 4) },
		},
		columnSuperMinimums: {
			"super_minimums has 0 values, the layer needs 4": func(*arrow.Field) arrow.Array { return lists(floats(), 0, 0) },
			"the minimum of group":                           func(*arrow.Field) arrow.Array { return lists(floats(3, 3, 3, 3), 0, 4) },
		},
		columnZeroPoints: {
			"zero_points is null": func(f *arrow.Field) arrow.Array { return array.MakeArrayOfNull(memory.DefaultAllocator, f.Type, 1) },
		},
	} {
		for want, change := range changes {
			part := result.Batches[0].NewSlice(int64(row), int64(row)+1)
			columns := slices.Clone(part.Columns())
			at := slices.Index(columnNames(result.Schema), column)
			field := result.Schema.Field(at)
			columns[at] = change(&field)
			broken := array.NewRecordBatch(result.Schema, columns, 1)
			checkRefused(t, column, result.Schema, broken, want)
			part.Release()
		}
	}
}

// checkRefused decodes a broken batch, which is released, for an error that says what is wrong.
func checkRefused(t *testing.T, what string, schema *arrow.Schema, broken arrow.RecordBatch, want string) {
	t.Helper()
	_, err := Dequantize(context.Background(), schema, []arrow.RecordBatch{broken}, DequantizeOptions{Dtype: WeightFloat32, Threads: 1}, checked(t))
	var failed LayerErrors
	if !errors.As(err, &failed) || !strings.Contains(failed[0].Message, want) {
		t.Errorf("%s: error %v, want %q", what, err, want)
	}
	broken.Release()
}

// TestEncodingsContradicted gives settings that an encoding cannot have.
func TestEncodingsContradicted(t *testing.T) {
	for want, s := range map[string]Settings{
		"Invalid bit_width: 4. Encoding 'q6_k' has 6":     {BitWidth: 4, GroupSize: 16, Encoding: Encoding(kernel.Q6K)},
		"Invalid group_size: 128. Encoding 'q4_k' has 32": {BitWidth: 4, GroupSize: 128, Encoding: Encoding(kernel.Q4K)},
		"Use method 'mse'": {BitWidth: 4, GroupSize: 32, Encoding: Encoding(kernel.Q4K), Method: HalfQuadratic},
	} {
		o := defaults
		o.Settings = s
		if err := o.Validate(); !errors.Is(err, ErrArgument) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: error %v, want %q", s, err, want)
		}
	}
}
