package quant

import (
	"context"
	"encoding/binary"
	"math"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

var defaults = Options{
	Settings: Settings{BitWidth: 4, GroupSize: 128, Method: RoundToNearest, ZeroPoint: IntegerZero, ScaleDtype: ScaleFloat32},
	Sort:     true, Threads: 2, Version: "test",
}

func little[T int8 | int32 | int64 | float32](values ...T) []byte {
	out, err := binary.Append(nil, binary.LittleEndian, values)
	if err != nil {
		panic(err)
	}
	return out
}

// rawArray puts an array together from buffers, checking nothing.
func rawArray(dataType arrow.DataType, length int, buffers [][]byte, children ...arrow.Array) arrow.Array {
	wrapped := make([]*memory.Buffer, len(buffers))
	for i, b := range buffers {
		if b != nil {
			wrapped[i] = memory.NewBufferBytes(b)
		}
	}
	childData := make([]arrow.ArrayData, len(children))
	for i, child := range children {
		childData[i] = child.Data()
	}
	return array.MakeFromData(array.NewData(dataType, length, wrapped, childData, 0, 0))
}

func floats(values ...float32) arrow.Array {
	return rawArray(arrow.PrimitiveTypes.Float32, len(values), [][]byte{nil, little(values...)})
}

func integers(values ...int64) arrow.Array {
	return rawArray(arrow.PrimitiveTypes.Int64, len(values), [][]byte{nil, little(values...)})
}

func texts(values ...string) arrow.Array {
	b := array.NewStringBuilder(memory.DefaultAllocator)
	b.AppendValues(values, nil)
	return b.NewArray()
}

func lists(child arrow.Array, offsets ...int32) arrow.Array {
	return rawArray(arrow.ListOf(child.DataType()), len(offsets)-1, [][]byte{nil, little(offsets...)}, child)
}

func batchOf(names []string, columns ...arrow.Array) (*arrow.Schema, []arrow.RecordBatch) {
	fields := make([]arrow.Field, len(names))
	for i, name := range names {
		fields[i] = arrow.Field{Name: name, Type: columns[i].DataType(), Nullable: true}
	}
	schema := arrow.NewSchema(fields, nil)
	return schema, []arrow.RecordBatch{array.NewRecordBatch(schema, columns, int64(columns[0].Len()))}
}

// twoLayers has "b" with 200 weights and "a" with 3 x 5.
func twoLayers() (*arrow.Schema, []arrow.RecordBatch) {
	weights := make([]float32, 215)
	for i := range weights {
		weights[i] = float32(math.Sin(float64(i)))
	}
	return batchOf([]string{"layer_name", "weights", "shape"},
		texts("b", "a"), lists(floats(weights...), 0, 200, 215), lists(integers(200, 3, 5), 0, 1, 3))
}

// checked gives an allocator and fails the test if anything of it is left.
func checked(t *testing.T) *memory.CheckedAllocator {
	allocator := memory.NewCheckedAllocator(memory.DefaultAllocator)
	t.Cleanup(func() { allocator.AssertSize(t, 0) })
	return allocator
}

func mustQuantize(t *testing.T, schema *arrow.Schema, batches []arrow.RecordBatch, o Options, allocator memory.Allocator) *Result {
	t.Helper()
	result, err := Quantize(context.Background(), schema, batches, o, allocator, nil)
	if err != nil {
		t.Fatal(err)
	}
	return result
}
