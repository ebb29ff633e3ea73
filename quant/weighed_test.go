package quant

import (
	"math"
	"slices"
	"testing"

	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/pyarrowquant/pyarrowquant/quant/internal/kernel"
)

// TestErrorsByImportance has all kernels and numbers of workers measure the same, which is what an
// importance of ones changes nothing of.
func TestErrorsByImportance(t *testing.T) {
	const rows, columns = 300, 700
	importance := make([]float32, columns)
	for i := range importance {
		importance[i] = float32(math.Exp(2 * math.Sin(float64(i))))
	}
	for _, settings := range measuredSettings() {
		o := defaults
		o.Settings, o.MeasureOnly = settings, true
		var first []float64
		for _, k := range kernel.All() {
			for _, threads := range []int{1, 3} {
				o.Kernel, o.Threads = Kernel{&k}, threads
				got := errorsOf(t, rows, columns, importance, o)
				if first == nil {
					first = got
				}
				if !slices.Equal(got, first) {
					t.Errorf("%s, %d threads, %+v: %v, want %v", k.Name, threads, settings, got, first)
				}
			}
		}
		if plain, weighted := first[:3], first[6:]; slices.Equal(plain, weighted) {
			t.Errorf("%+v: importance weighs nothing", settings)
		}
		alike := errorsOf(t, rows, columns, slices.Repeat([]float32{3}, columns), o)
		if plain, weighted := alike[:3], alike[6:]; !slices.Equal(plain, weighted) {
			t.Errorf("%+v: ones give %v, want %v", settings, weighted, plain)
		}
	}
}

// measuredSettings are of units of every kind.
func measuredSettings() []Settings {
	settings := make([]Settings, 0, 8)
	for _, method := range []Method{RoundToNearest, MeanSquares, HalfQuadratic} {
		s := defaults.Settings
		s.Method, s.GroupSize = method, 64
		settings = append(settings, s)
	}
	for _, e := range []kernel.Encoding{kernel.Q4K, kernel.NVFP4} {
		d := e.Describe()
		settings = append(settings, Settings{BitWidth: d.BitWidth, GroupSize: GroupSize(d.GroupSize), Method: MeanSquares, Encoding: Encoding(e)})
	}
	for _, size := range sharedSizes {
		settings = append(settings, sharedOptions(MeanSquares, size).Settings)
	}
	return settings
}

// errorsOf are the measuredColumns of a layer.
func errorsOf(t *testing.T, rows, columns int, importance []float32, o Options) []float64 {
	t.Helper()
	weights := normal(rows, columns)
	schema, batches := batchOf([]string{"layer_name", "weights", "shape", "importance"}, texts("w"),
		lists(floats(weights...), 0, int32(len(weights))), lists(integers(int64(rows), int64(columns)), 0, 2),
		lists(floats(importance...), 0, int32(columns)))
	result := mustQuantize(t, schema, batches, o, checked(t))
	defer result.Release()
	found := make([]float64, len(measuredColumns))
	for i, name := range measuredColumns {
		found[i] = result.Batches[0].Column(slices.Index(columnNames(result.Schema), name)).(*array.Float64).Value(0)
	}
	return found
}
