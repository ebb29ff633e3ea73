package quant

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/pyarrowquant/pyarrowquant/quant/internal/kernel"
)

func TestQuantizeSortsAndReleases(t *testing.T) {
	schema, batches := twoLayers()
	result := mustQuantize(t, schema, batches, defaults, checked(t))
	defer result.Release()
	names := result.Batches[0].Column(0).(*array.String)
	if names.Value(0) != "a" || names.Value(1) != "b" {
		t.Errorf("names are %v", names)
	}
	packed := result.Batches[0].Column(1).(*array.Binary)
	if packed.ValueLen(0) != 3*3 || packed.ValueLen(1) != 100 {
		t.Errorf("packed lengths are %d and %d", packed.ValueLen(0), packed.ValueLen(1))
	}
}

func TestQuantizeErrorsWrapSentinelsAndRelease(t *testing.T) {
	schema, batches := twoLayers()
	noWeights, oneColumn := batchOf([]string{"layer_name"}, texts("a"))
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	wrong := defaults
	wrong.BitWidth = 7
	for _, c := range []struct {
		name    string
		ctx     context.Context
		schema  *arrow.Schema
		batches []arrow.RecordBatch
		options Options
		want    error
	}{
		{"argument", context.Background(), schema, batches, wrong, ErrArgument},
		{"schema", context.Background(), noWeights, oneColumn, defaults, ErrSchema},
		{"cancelled", cancelled, schema, batches, defaults, context.Canceled},
	} {
		t.Run(c.name, func(t *testing.T) {
			result, err := Quantize(c.ctx, c.schema, c.batches, c.options, checked(t), nil)
			if !errors.Is(err, c.want) || result != nil {
				t.Errorf("got %v, %v; want %v", result, err, c.want)
			}
		})
	}
}

// poorAllocator has no memory after some allocations.
type poorAllocator struct {
	memory.Allocator
	left int
}

func (a *poorAllocator) Allocate(size int) []byte {
	if a.left--; a.left < 0 {
		panic("nothing left")
	}
	return a.Allocator.Allocate(size)
}

func TestQuantizeWithoutMemory(t *testing.T) {
	schema, batches := twoLayers()
	for left := 0; ; left++ {
		result, err := Quantize(context.Background(), schema, batches, defaults, &poorAllocator{checked(t), left}, nil)
		if err == nil {
			if left < 5 {
				t.Errorf("only %d allocations", left)
			}
			result.Release()
			return
		}
		if !errors.Is(err, ErrMemory) {
			t.Fatalf("after %d allocations: %v", left, err)
		}
	}
}

func TestWorkerPanicBecomesAnError(t *testing.T) {
	g := newGrouped(matrix{rows: 10, columns: unitElements}, 128)
	err := cut(1, 1, func(int) *grouped { return &g }).run(context.Background(), 2, func() worker {
		return func(i int, _ *unit) {
			if i == 3 {
				panic("three")
			}
		}
	})
	var panicked *PanicError
	if !errors.As(err, &panicked) || panicked.Value != "three" || len(panicked.Stack) == 0 {
		t.Errorf("got %v", err)
	}
}

// TestSmallOffsets makes 32-bit offsets run out early, and compares the rows
// with those of one batch.
func TestSmallOffsets(t *testing.T) {
	schema, batches := twoLayers()
	columns, err := resolveWeights(schema, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		limit, batches int
		large          bool
	}{{1000, 1, false}, {108, 2, false}, {100, 2, false}, {99, 1, true}} {
		t.Run(fmt.Sprint(c.limit), func(t *testing.T) {
			layers, _, err := readLayers(context.Background(), batches, columns, &defaults)
			if err != nil {
				t.Fatal(err)
			}
			q := newQuantization(layers, defaults, c.limit)
			q.memory.allocator = checked(t)
			defer q.memory.release()
			q.makeColumns()
			if err := q.run(context.Background(), nil, nil); err != nil {
				t.Fatal(err)
			}
			result := &Result{}
			q.build(result)
			defer result.Release()
			if len(result.Batches) != c.batches || q.large != c.large {
				t.Errorf("%d batches, large %v", len(result.Batches), q.large)
			}
			want := mustQuantize(t, schema, batches, Options{Settings: defaults.Settings, Threads: 1}, checked(t))
			defer want.Release()
			if got, want := rowTexts(result), rowTexts(want); !slices.Equal(got, want) {
				t.Errorf("got %v\nwant %v", got, want)
			}
		})
	}
}

// rowTexts prints each row, whatever the batches and offset widths are.
func rowTexts(r *Result) (rows []string) {
	for _, batch := range r.Batches {
		for row := range int(batch.NumRows()) {
			text := ""
			for _, column := range batch.Columns() {
				text += column.ValueStr(row) + " "
			}
			rows = append(rows, text)
		}
	}
	return rows
}

func TestSplitRows(t *testing.T) {
	sizes := []rowSizes{{5, 0}, {5, 0}, {1, 0}, {0, 20}, {0, 0}, {3, 3}}
	got := splitRows(len(sizes), 10, func(row int) rowSizes { return sizes[row] })
	if want := []int{2, 5, 6}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := splitRows(0, 10, nil); !slices.Equal(got, []int{0}) {
		t.Errorf("no rows give %v", got)
	}
}

// TestUnitsCoverEachLayerOnce also checks that units begin at whole bytes, and
// at whole groups but for parts of long ones.
func TestUnitsCoverEachLayerOnce(t *testing.T) {
	for _, m := range []matrix{{0, 0}, {1, 1}, {7, 9}, {3, unitElements}, {2, unitElements + 1}, {3, 5*unitElements + 77}, {100000, 3}} {
		for _, groupSize := range []int{8, 128, int(WholeRow), 3 * unitElements} {
			g := newGrouped(m, groupSize)
			element, group, byteAt := 0, 0, 0
			for _, task := range cut(1, 1, func(int) *grouped { return &g }) {
				u := task.unit
				part := u.grouped(g)
				groups := part.groups()
				if g.isLong() && u.column%g.groupSize != 0 {
					group, groups = group-1, 1 // goes on with the group
				}
				if u.firstElement(g) != element || u.firstGroup(g) != group || u.firstByte(g, 3) != byteAt {
					t.Fatalf("%+v: unit %+v begins at %d, %d, %d, want %d, %d, %d", g, u,
						u.firstElement(g), u.firstGroup(g), u.firstByte(g, 3), element, group, byteAt)
				}
				if u.rows > 1 && u.columns != g.columns || u.column%g.groupSize != 0 && !g.isLong() {
					t.Fatalf("%+v: unit %+v is neither whole rows nor whole groups", g, u)
				}
				if part.elements() > max(2*unitElements, g.columns) && !g.isLong() || g.isLong() && u.columns > unitElements {
					t.Fatalf("%+v: unit %+v is too large", g, u)
				}
				element, group, byteAt = element+part.elements(), group+groups, byteAt+part.packedBytes(3)
			}
			if element != g.elements() || group != g.groups() || byteAt != g.packedBytes(3) {
				t.Fatalf("%+v: units end at %d, %d, %d", g, element, group, byteAt)
			}
		}
	}
}

// TestTasksCoverAllLayers has layers of all kinds, enough of them for two spans.
func TestTasksCoverAllLayers(t *testing.T) {
	sizes := []matrix{{1, 1000}, {0, 0}, {3, unitElements / 2}, {1, 5}, {1, 5}, {2, unitElements + 8}, {1, unitElements}}
	layers := make([]grouped, 3*spanRows)
	elements := 0
	for i := range layers {
		layers[i] = newGrouped(sizes[i%len(sizes)], 128)
		elements += layers[i].elements()
	}
	for _, threads := range []int{1, 2} {
		all := cut(threads, len(layers), func(i int) *grouped { return &layers[i] })
		number, layer, covered := 0, 0, 0
		for _, task := range all {
			inTask := 0
			task.units(func(i int, u *unit) {
				if i != number || u.layer < layer {
					t.Fatalf("%d threads: unit %+v has number %d, want %d", threads, u, i, number)
				}
				number, layer = number+1, u.layer
				inTask += u.grouped(layers[u.layer]).elements()
			})
			if inTask >= 2*unitElements {
				t.Errorf("%d threads: task %+v has %d weights", threads, task, inTask)
			}
			covered += inTask
		}
		if covered != elements || number != all.count() {
			t.Errorf("%d threads: %d weights in %d units, want %d in %d", threads, covered, number, elements, all.count())
		}
	}
}

// TestLongGroups compares groups that are cut with the kernel's own result for
// the whole group, faults included.
func TestLongGroups(t *testing.T) {
	const columns = 2*unitElements + 1234
	weights := make([]float32, 2*columns)
	for i := range weights {
		weights[i] = float32(math.Sin(float64(i)*1.7) * float64(1+i%11))
	}
	for _, bad := range []int{-1, 0, unitElements + 5, columns + 2*unitElements + 7} {
		values := slices.Clone(weights)
		if bad >= 0 {
			values[bad], values[len(values)-1] = float32(math.Inf(-1)), float32(math.NaN())
		}
		for _, k := range kernel.All() {
			o := defaults
			o.GroupSize, o.Kernel, o.Metrics, o.ContinueOnError = WholeRow, Kernel{&k}, true, true
			schema, batches := batchOf([]string{"layer_name", "weights", "shape"},
				texts("a"), lists(floats(values...), 0, int32(len(values))), lists(integers(2, columns), 0, 2))
			result := mustQuantize(t, schema, batches, o, checked(t))
			if bad >= 0 {
				if index := *result.Skipped[0].Index; index != int64(bad) {
					t.Errorf("%s: bad weight at %d found at %d", k.Name, bad, index)
				}
				result.Release()
				continue
			}
			row := result.Batches[0]
			block := kernel.Block{
				Format: newLayerSettings(o.Settings).format, Rows: 2, Columns: columns, GroupSize: columns, Weights: little(values...),
				Packed: make([]byte, 2*kernel.RowBytes(columns, 4)), Scales: make([]float32, 2), ZeroPoints: make([]float32, 2),
			}
			kernel.Scalar.Quantize(&block)
			if !slices.Equal(row.Column(1).(*array.Binary).Value(0), block.Packed) {
				t.Errorf("%s: other codes", k.Name)
			}
			for column, want := range map[int][]float32{2: block.Scales, 3: block.ZeroPoints} {
				got := row.Column(column).(*array.List).ListValues().(*array.Float32).Float32Values()
				if !slices.Equal(got, want) {
					t.Errorf("%s: column %d is %v, want %v", k.Name, column, got, want)
				}
			}
			result.Release()
		}
	}
}

func TestContinueOnErrorKeepsTheOthers(t *testing.T) {
	bad := float32(math.NaN())
	schema, batches := batchOf([]string{"layer_name", "weights"},
		texts("x", "y", "z"), lists(floats(1, 2, 3, bad, 4, 5), 0, 2, 4, 6))
	_, err := Quantize(context.Background(), schema, batches, defaults, checked(t), nil)
	var failed LayerErrors
	if !errors.As(err, &failed) || len(failed) != 1 || *failed[0].Name != "y" || *failed[0].Index != 1 || failed[0].Row != 1 {
		t.Fatalf("got %v", err)
	}
	skipping := defaults
	skipping.ContinueOnError = true
	got := mustQuantize(t, schema, batches, skipping, checked(t))
	defer got.Release()
	schema, batches = batchOf([]string{"layer_name", "weights"}, texts("x", "z"), lists(floats(1, 2, 4, 5), 0, 2, 4))
	want := mustQuantize(t, schema, batches, defaults, checked(t))
	defer want.Release()
	if got, want := rowTexts(got), rowTexts(want); !slices.Equal(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
}
