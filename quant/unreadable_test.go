//go:build unix

package quant

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/pyarrowquant/pyarrowquant/quant/internal/kernel"
)

const mappedWeights = 1 << 18

// mappedLayer has weights in a mapped file, which cut makes shorter.
func mappedLayer(t *testing.T) (table Table, cut func()) {
	values := make([]float32, mappedWeights)
	for i := range values {
		values[i] = float32(math.Sin(float64(i)))
	}
	path := filepath.Join(t.TempDir(), "weights")
	if err := os.WriteFile(path, little(values...), 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	mapped, err := syscall.Mmap(int(file.Fd()), 0, 4*mappedWeights, syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Munmap(mapped); err != nil {
			t.Error(err)
		}
	})
	weights := rawArray(arrow.PrimitiveTypes.Float32, mappedWeights, [][]byte{nil, mapped})
	schema, batches := batchOf([]string{"layer_name", "weights"}, texts("a"), lists(weights, 0, mappedWeights))
	return Table{schema, batches}, func() {
		if err := os.Truncate(path, 2*mappedWeights); err != nil {
			t.Fatal(err)
		}
	}
}

// TestMappedFilesThatAreCutShort go on with an error, whichever instructions come to the
// part that is not there any more, and nothing of a result is left.
func TestMappedFilesThatAreCutShort(t *testing.T) {
	table, cut := mappedLayer(t)
	result := mustQuantize(t, table.Schema, table.Batches, defaults, memory.DefaultAllocator)
	defer result.Release()
	cut()
	check := func(what any, made *Result, err error) {
		t.Helper()
		if !errors.Is(err, ErrUnreadable) || made != nil {
			t.Errorf("%+v: got %v, %v", what, made, err)
		}
	}
	ctx := context.Background()
	for _, threads := range []int{1, 2} {
		for _, settings := range append(allEncodings(RoundToNearest), allEncodings(MeanSquares)...) {
			for _, each := range kernel.All() {
				o := defaults
				o.Settings, o.Threads, o.Kernel = settings, threads, Kernel{&each}
				made, err := Quantize(ctx, table.Schema, table.Batches, o, checked(t), nil)
				check(o, made, err)
			}
		}
		o := compareDefaults
		o.Threads = threads
		made, err := Compare(ctx, table, Table{result.Schema, result.Batches}, o, checked(t))
		check(o, made, err)
	}
}
