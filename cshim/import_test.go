package main

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"unsafe"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/cdata"
)

// producer gives batches and may then fail.
type producer struct {
	schema  *arrow.Schema
	batches []arrow.RecordBatch // of this schema, unless it lies
	err     error
	given   int
	holders atomic.Int64
}

func (p *producer) Retain()                        { p.holders.Add(1) }
func (p *producer) Release()                       { p.holders.Add(-1) }
func (p *producer) Schema() *arrow.Schema          { return p.schema }
func (p *producer) RecordBatch() arrow.RecordBatch { return p.batches[p.given-1] }
func (p *producer) Record() arrow.RecordBatch      { return p.RecordBatch() }

func (p *producer) Next() bool {
	p.given++
	return p.given <= len(p.batches)
}

func (p *producer) Err() error {
	if p.given > len(p.batches) {
		return p.err
	}
	return nil
}

// stream exports the producer, which the stream alone holds from then on.
func (p *producer) stream() *cdata.CArrowArrayStream {
	stream := new(cdata.CArrowArrayStream)
	cdata.ExportRecordReader(p, stream)
	return stream
}

func releaseBatches(batches []arrow.RecordBatch) {
	for _, batch := range batches {
		batch.Release()
	}
}

// TestReadingCopiesNothing compares where batches lie with where they came from. The
// producer is let go once all is read, its memory when the input is released.
func TestReadingCopiesNothing(t *testing.T) {
	nothingLeft(t)
	p := &producer{}
	p.schema, p.batches = weightBatches(10, 100, 4)
	in := mustRead(t, p.stream())
	if p.holders.Load() != 0 {
		t.Errorf("%d holders of the producer", p.holders.Load())
	}
	if !in.schema.Equal(p.schema) || len(in.batches) != 3 || in.rows() != 10 {
		t.Fatalf("%d batches, %d rows of %v", len(in.batches), in.rows(), in.schema)
	}
	values := func(batch arrow.RecordBatch) []float32 {
		return batch.Column(1).(*array.List).ListValues().(*array.Float32).Float32Values()
	}
	bytes := uint64(0)
	for i, batch := range p.batches {
		if got, want := values(in.batches[i]), values(batch); unsafe.SliceData(got) != unsafe.SliceData(want) || len(got) != len(want) {
			t.Errorf("batch %d is a copy", i)
		}
		for _, column := range batch.Columns() {
			bytes += column.Data().SizeInBytes()
		}
	}
	// Builders leave some room at the end of buffers, which a stream does not tell.
	if least := uint64(10 * (100*4 + len("layer.0000000"))); in.bytes() < least || in.bytes() > bytes {
		t.Errorf("%d bytes, want %d to %d", in.bytes(), least, bytes)
	}
	releaseBatches(p.batches)
	if got := values(in.batches[2])[5]; got != float32(8%7-5%3) {
		t.Errorf("a weight is %g after its producer let it go", got)
	}
	releaseAll(in, nil)
	if in.batches != nil {
		t.Error("batches are held after their release")
	}
}

// TestUnreadableStreams fail at every place: what has been read by then is released,
// and so is the producer.
func TestUnreadableStreams(t *testing.T) {
	for name, c := range map[string]struct {
		change func(p *producer)
		text   string
	}{
		"at the first batch": {func(p *producer) { releaseBatches(p.batches); p.batches, p.err = nil, errors.New("disk on fire") }, "disk on fire"},
		"after all batches":  {func(p *producer) { p.err = errors.New("connection lost") }, "connection lost"},
		"columns are missing": {func(p *producer) {
			p.schema = arrow.NewSchema(append(p.schema.Fields(), arrow.Field{Name: "more", Type: arrow.PrimitiveTypes.Int8}), nil)
		}, ""},
		"another type": {func(p *producer) {
			p.schema = arrow.NewSchema([]arrow.Field{p.schema.Field(0), {Name: "weights", Type: arrow.BinaryTypes.String}}, nil)
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			nothingLeft(t)
			p := &producer{}
			p.schema, p.batches = weightBatches(10, 100, 4)
			c.change(p)
			in, err := readStream(p.stream())
			if in != nil || !errors.Is(err, errSource) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("got %v, %v; want %s", in, err, c.text)
			}
			if p.holders.Load() != 0 {
				t.Errorf("%d holders of the producer", p.holders.Load())
			}
			releaseBatches(p.batches)
		})
	}
}

// TestStreamsWithoutBatches have a schema all the same.
func TestStreamsWithoutBatches(t *testing.T) {
	p := &producer{}
	p.schema, _ = weightBatches(0, 0, 1)
	in := mustRead(t, p.stream())
	if !in.schema.Equal(p.schema) || in.rows() != 0 || in.bytes() != 0 || p.holders.Load() != 0 {
		t.Errorf("%v, %d rows, %d bytes, %d holders", in.schema, in.rows(), in.bytes(), p.holders.Load())
	}
	in.release()
}
