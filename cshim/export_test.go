package main

import (
	"fmt"
	"sync"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/cdata"

	"github.com/pyarrowquant/pyarrowquant/quant"
)

// exported is a stream of weightBatches, of which nothing else is held.
func exported(t *testing.T, layers, batchRows int) *cdata.CArrowArrayStream {
	t.Helper()
	result := &quant.Result{}
	result.Schema, result.Batches = weightBatches(layers, 50, batchRows)
	defer result.Release()
	stream := new(cdata.CArrowArrayStream)
	if err := exportResult(result, stream); err != nil {
		t.Fatal(err)
	}
	return stream
}

// TestExportedBatchesComeInOrder for any number of them, and are what they were.
func TestExportedBatchesComeInOrder(t *testing.T) {
	for _, count := range []int{0, 1, 2, 7} {
		t.Run(fmt.Sprint(count), func(t *testing.T) {
			nothingLeft(t)
			schema, want := weightBatches(3*count, 50, 3)
			defer releaseBatches(want)
			got := mustRead(t, exported(t, 3*count, 3))
			defer got.release()
			if !got.schema.Equal(schema) || len(got.batches) != count {
				t.Fatalf("%d batches of %v", len(got.batches), got.schema)
			}
			for i := range want {
				if !array.RecordEqual(got.batches[i], want[i]) {
					t.Errorf("batch %d is %v", i, got.batches[i])
				}
			}
		})
	}
}

// TestStreamsFreeWhatIsNotRead: a consumer may stop anywhere, and keep what it has.
func TestStreamsFreeWhatIsNotRead(t *testing.T) {
	for taken := range 4 {
		t.Run(fmt.Sprint(taken), func(t *testing.T) {
			nothingLeft(t)
			reader, err := cdata.ImportCRecordReader(exported(t, 9, 3), nil)
			if err != nil {
				t.Fatal(err)
			}
			var kept []arrow.RecordBatch
			for range taken {
				batch, err := reader.Read()
				if err != nil {
					t.Fatal(err)
				}
				batch.Retain()
				kept = append(kept, batch)
			}
			reader.(array.RecordReader).Release()
			for i, batch := range kept {
				if got, want := batch.Column(0).(*array.String).Value(2), fmt.Sprintf("layer.%07d", 3*i+2); got != want {
					t.Errorf("batch %d has %s, want %s", i, got, want)
				}
			}
			releaseBatches(kept)
		})
	}
	t.Run("not at all", func(t *testing.T) {
		nothingLeft(t)
		cdata.ReleaseCArrowArrayStream(exported(t, 9, 3))
	})
}

// TestStreamsOfManyConsumers are read and released by goroutines of their own.
func TestStreamsOfManyConsumers(t *testing.T) {
	nothingLeft(t)
	var group sync.WaitGroup
	for id := range 8 {
		stream := exported(t, 20, 1+id)
		group.Go(func() {
			in, err := readStream(stream)
			if err != nil || in.rows() != 20 {
				t.Errorf("%v, error %v", in, err)
			}
			releaseAll(in)
		})
	}
	group.Wait()
}
