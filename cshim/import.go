package main

// #include "stream.h"
import "C"

import (
	"errors"
	"fmt"
	"io"
	"unsafe"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/cdata"

	"github.com/pyarrowquant/pyarrowquant/quant"
)

// errSource: the stream could not be read.
var errSource = errors.New("cannot read the Arrow data")

// input is a stream that has been read: all batches are held, none is copied.
type input struct {
	schema  *arrow.Schema
	batches []arrow.RecordBatch
}

// bytes is the size of all buffers that the batches refer to.
func (in *input) bytes() (total uint64) {
	for _, batch := range in.batches {
		for _, column := range batch.Columns() {
			total += column.Data().SizeInBytes()
		}
	}
	return total
}

func (in *input) table() quant.Table { return quant.Table{Schema: in.schema, Batches: in.batches} }

// releaseAll takes nil for a stream that could not be read.
func releaseAll(inputs ...*input) {
	for _, in := range inputs {
		if in != nil {
			in.release()
		}
	}
}

func (in *input) release() {
	for _, batch := range in.batches {
		batch.Release()
	}
	in.batches = nil
}

// readStream moves the stream and imports all its batches without a copy.
func readStream(source *C.struct_ArrowArrayStream) (*input, error) {
	imported, err := cdata.ImportCRecordReader((*cdata.CArrowArrayStream)(unsafe.Pointer(source)), nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errSource, err)
	}
	reader := imported.(array.RecordReader)
	defer reader.Release()
	in := &input{schema: reader.Schema()}
	for {
		batch, err := nextBatch(imported)
		if errors.Is(err, io.EOF) {
			return in, nil
		}
		if err != nil {
			in.release()
			return nil, fmt.Errorf("%w: %w", errSource, err)
		}
		in.batches = append(in.batches, batch)
	}
}

// nextBatch retains the batch, which the reader would release at the next one.
// arrow-go panics on arrays whose parts do not fit together.
func nextBatch(reader interface {
	Read() (arrow.RecordBatch, error)
}) (batch arrow.RecordBatch, err error) {
	defer func() {
		if value := recover(); value != nil {
			err = fmt.Errorf("corrupt array: %v", value)
		}
	}()
	if batch, err = reader.Read(); err == nil {
		batch.Retain()
	}
	return batch, err
}
