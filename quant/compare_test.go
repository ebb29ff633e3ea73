package quant

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

var compareDefaults = CompareOptions{Threads: 2}

// comparedLayers are a table of weights and its result with metrics, in input order.
func comparedLayers(t *testing.T) (original, result Table) {
	schema, batches := twoLayers()
	o := defaults
	o.Metrics, o.Sort = true, false
	quantized := mustQuantize(t, schema, batches, o, memory.DefaultAllocator)
	return Table{schema, batches}, Table{quantized.Schema, quantized.Batches}
}

func column[T any](result *Result, batch int, name string) T {
	return result.Batches[batch].Column(result.Schema.FieldIndices(name)[0]).(any).(T)
}

func TestCompareGivesTheMetricsOfQuantize(t *testing.T) {
	original, result := comparedLayers(t)
	compared, err := Compare(context.Background(), original, result, compareDefaults, checked(t))
	if err != nil {
		t.Fatal(err)
	}
	defer compared.Release()
	for _, name := range metricColumns {
		got, want := column[*array.Float64](compared, 0, name), column[*array.Float64](&Result{Schema: result.Schema, Batches: result.Batches}, 0, name)
		if !array.Equal(got, want) || got.Len() != 2 {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
}

func TestCompareErrorsWrapSentinelsAndRelease(t *testing.T) {
	original, result := comparedLayers(t)
	schema, batches := batchOf([]string{"layer_name"}, texts("a"))
	names := Table{schema, batches}
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	for _, c := range []struct {
		name             string
		ctx              context.Context
		original, result Table
		options          CompareOptions
		want             error
		text             string
	}{
		{"threads", context.Background(), original, result, CompareOptions{}, ErrArgument, "Invalid threads: 0"},
		{"original", context.Background(), names, result, compareDefaults, ErrSchema, "In original: Missing required column 'weights'"},
		{"result", context.Background(), original, names, compareDefaults, ErrSchema, "In result: Missing required column 'quantized_data' or 'weights'"},
		{"cancelled", cancelled, original, result, compareDefaults, context.Canceled, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			compared, err := Compare(c.ctx, c.original, c.result, c.options, checked(t))
			if !errors.Is(err, c.want) || !strings.HasPrefix(err.Error(), c.text) || compared != nil {
				t.Errorf("got %v, %v; want %v", compared, err, c.want)
			}
		})
	}
}

func TestCompareWithoutMemory(t *testing.T) {
	original, result := comparedLayers(t)
	for left := 0; ; left++ {
		compared, err := Compare(context.Background(), original, result, compareDefaults, &poorAllocator{checked(t), left})
		if err == nil {
			if left < 9 {
				t.Errorf("only %d allocations", left)
			}
			compared.Release()
			return
		}
		if !errors.Is(err, ErrMemory) {
			t.Fatalf("after %d allocations: %v", left, err)
		}
	}
}

// TestCompareSmallOffsets makes the 32-bit offsets of names run out early.
func TestCompareSmallOffsets(t *testing.T) {
	original, result := comparedLayers(t)
	weights, _, err := readWeights(context.Background(), original, nil, 2)
	if err != nil {
		t.Fatal(err)
	}
	decoded, _, err := readDecoded(context.Background(), result, nil, 2, Kernel{})
	if err != nil {
		t.Fatal(err)
	}
	var bad LayerErrors
	c := newComparison(match(weights, decoded, &bad, &bad), compareDefaults)
	c.memory.allocator = checked(t)
	defer c.memory.release()
	if err := c.run(context.Background()); err != nil || len(bad) > 0 {
		t.Fatal(err, bad)
	}
	var compared Result
	c.build(&compared, 2)
	defer compared.Release()
	if len(compared.Batches) != 2 {
		t.Fatalf("%d batches, want 2", len(compared.Batches))
	}
	for i, name := range []string{"b", "a"} {
		if got := column[*array.String](&compared, i, "layer_name"); got.Len() != 1 || got.Value(0) != name {
			t.Errorf("batch %d has the names %v, want %s", i, got, name)
		}
		got, want := column[*array.Float64](&compared, i, "mse"), column[*array.Float64](&Result{Schema: result.Schema, Batches: result.Batches}, 0, "mse")
		if got.Value(0) != want.Value(i) {
			t.Errorf("mse of %s is %g, want %g", name, got.Value(0), want.Value(i))
		}
	}
}
