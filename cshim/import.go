package main

import (
	"errors"
	"fmt"
	"io"

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

func (in *input) rows() (total uint64) {
	for _, batch := range in.batches {
		total += uint64(batch.NumRows())
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

// readStream moves the stream and imports all its batches without a copy. arrow-go
// panics on schemas and arrays whose parts do not fit together.
func readStream(source *cdata.CArrowArrayStream) (*input, error) {
	in := &input{}
	err := quant.Recovered(func() error { return in.read(source) })
	var panicked *quant.PanicError
	if errors.As(err, &panicked) {
		err = fmt.Errorf("%w: corrupt array: %v", errSource, panicked.Value)
	}
	if err != nil {
		in.release()
		return nil, err
	}
	return in, nil
}

func (in *input) read(source *cdata.CArrowArrayStream) error {
	imported, err := cdata.ImportCRecordReader(source, nil)
	if err != nil {
		return fmt.Errorf("%w: %w", errSource, err)
	}
	reader := imported.(array.RecordReader)
	defer reader.Release()
	in.schema = reader.Schema()
	for {
		batch, err := imported.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%w: %w", errSource, err)
		}
		batch.Retain() // the reader releases it at the next one
		in.batches = append(in.batches, batch)
	}
}
