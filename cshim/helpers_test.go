package main

import (
	"fmt"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/cdata"

	"github.com/pyarrowquant/pyarrowquant/quant"
)

var options = quant.Options{
	Settings: quant.Settings{BitWidth: 4, GroupSize: 8, Method: quant.RoundToNearest, ZeroPoint: quant.IntegerZero, ScaleDtype: quant.ScaleFloat32},
	Threads:  4, Version: "test",
}

// nothingLeft fails a test that leaves memory of the pool behind.
func nothingLeft(t *testing.T) {
	t.Helper()
	before := allocator.AllocatedBytes()
	t.Cleanup(func() {
		if after := allocator.AllocatedBytes(); after != before {
			t.Errorf("%d bytes are left", after-before)
		}
	})
}

// weightBatches makes so many layers of as many weights, in batches of batchRows, in
// memory of the pool.
func weightBatches(layers, weights, batchRows int) (*arrow.Schema, []arrow.RecordBatch) {
	schema := arrow.NewSchema([]arrow.Field{
		{Name: "layer_name", Type: arrow.BinaryTypes.String},
		{Name: "weights", Type: arrow.ListOf(arrow.PrimitiveTypes.Float32)},
	}, nil)
	builder := array.NewRecordBuilder(&callAllocator{pool: allocator}, schema)
	defer builder.Release()
	names, lists := builder.Field(0).(*array.StringBuilder), builder.Field(1).(*array.ListBuilder)
	values := lists.ValueBuilder().(*array.Float32Builder)
	var batches []arrow.RecordBatch
	layer := make([]float32, weights)
	for i := range layers {
		names.Append(fmt.Sprintf("layer.%07d", i))
		lists.Append(true)
		for j := range layer {
			layer[j] = float32(i%7 - j%3)
		}
		values.AppendValues(layer, nil)
		if (i+1)%batchRows == 0 || i == layers-1 {
			batches = append(batches, builder.NewRecordBatch())
		}
	}
	return schema, batches
}

// weightsOf is a stream of weightBatches.
func weightsOf(layers, weights, batchRows int) *cdata.CArrowArrayStream {
	schema, batches := weightBatches(layers, weights, batchRows)
	reader, err := array.NewRecordReader(schema, batches)
	if err != nil {
		panic(err)
	}
	defer reader.Release()
	for _, batch := range batches {
		batch.Release()
	}
	stream := new(cdata.CArrowArrayStream)
	cdata.ExportRecordReader(reader, stream)
	return stream
}

func mustRead(t *testing.T, stream *cdata.CArrowArrayStream) *input {
	t.Helper()
	in, err := readStream(stream)
	if err != nil {
		t.Fatal(err)
	}
	return in
}

// resultStream takes the job's result out as C sees it.
func resultStream(t *testing.T, j *job) *cdata.CArrowArrayStream {
	t.Helper()
	result, err := j.takeResult()
	if err != nil {
		t.Fatal(err)
	}
	defer result.Release()
	stream := new(cdata.CArrowArrayStream)
	if err := exportResult(result, stream); err != nil {
		t.Fatal(err)
	}
	return stream
}
