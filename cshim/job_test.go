package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/cdata"

	"github.com/pyarrowquant/pyarrowquant/quant"
	"github.com/pyarrowquant/pyarrowquant/quant/knapsack"
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

// weightsOf makes so many layers of as many weights, in batches of batchRows.
func weightsOf(layers, weights, batchRows int) *cdata.CArrowArrayStream {
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

// TestManyLayersThereAndBack has columns so large that several goroutines of each
// call allocate large blocks at once.
func TestManyLayersThereAndBack(t *testing.T) {
	const layers, weights = 132_000, 3
	nothingLeft(t)
	j := startQuantize(mustRead(t, weightsOf(layers, weights, 50_000)), options, false)
	coded := mustRead(t, resultStream(t, j))
	j = startDequantize(coded, quant.DequantizeOptions{Dtype: quant.WeightFloat32, Threads: 4})
	decoded := mustRead(t, resultStream(t, j))
	defer decoded.release()
	row := 0
	for _, batch := range decoded.batches {
		names := batch.Column(0).(*array.String)
		values := batch.Column(1).(*array.List).ListValues().(*array.Float32).Float32Values()
		for i := range int(batch.NumRows()) {
			// The range is at most 6 and has 15 steps; the half of one is 0.2.
			for k := range weights {
				want := float32(row%7 - k%3)
				if got := values[i*weights+k]; got-want > 0.21 || want-got > 0.21 {
					t.Fatalf("row %d: weight %d is %g, want %g", row, k, got, want)
				}
			}
			if want := fmt.Sprintf("layer.%07d", row); names.Value(i) != want {
				t.Fatalf("row %d is %s", row, names.Value(i))
			}
			row++
		}
	}
	if row != layers {
		t.Errorf("%d rows, want %d", row, layers)
	}
}

// TestJobsRunAtOnce has some calls share the pool, which is emptied all the while.
func TestJobsRunAtOnce(t *testing.T) {
	nothingLeft(t)
	var jobs []*job
	for range 6 {
		jobs = append(jobs, startQuantize(mustRead(t, weightsOf(40, 40_000, 7)), options, true))
	}
	for _, j := range jobs {
		for !j.wait(time.Millisecond) {
			if err := allocator.empty(); err != nil {
				t.Fatal(err)
			}
			j.drainEvents()
		}
		in := mustRead(t, resultStream(t, j))
		if rows := in.batches[0].NumRows(); rows != 40 {
			t.Errorf("%d rows", rows)
		}
		in.release()
	}
}

// TestAJobIsCancelled ends jobs at some time: none leaves anything, and each has a
// result or says that it was cancelled.
func TestAJobIsCancelled(t *testing.T) {
	nothingLeft(t)
	for round := range 20 {
		j := startQuantize(mustRead(t, weightsOf(10, 8_000, 10)), options, true)
		for range round {
			j.wait(10 * time.Microsecond)
		}
		j.close(j.handle())
		if j.err != nil && !errors.Is(j.err, context.Canceled) {
			t.Errorf("error %v", j.err)
		}
	}
}

// TestSmallInputsMayBeMuchWork has many rows that all are the same weights: little
// input, but nothing that the caller waits for without being able to cancel it.
func TestSmallInputsMayBeMuchWork(t *testing.T) {
	nothingLeft(t)
	const rows, weights = 1500, 8000
	a := &callAllocator{pool: allocator}
	names, views := array.NewStringBuilder(a), array.NewListViewBuilder(a, arrow.PrimitiveTypes.Float32)
	defer names.Release()
	defer views.Release()
	for range rows {
		names.Append("a")
		views.AppendWithSize(true, weights)
	}
	values := views.ValueBuilder().(*array.Float32Builder)
	values.AppendValues(make([]float32, weights), nil)
	columns := []arrow.Array{names.NewArray(), views.NewArray()}
	offsets := columns[1].(*array.ListView).Offsets()
	for i := range offsets {
		offsets[i] = 0
	}
	schema := arrow.NewSchema([]arrow.Field{{Name: "layer_name", Type: columns[0].DataType()}, {Name: "weights", Type: columns[1].DataType()}}, nil)
	in := &input{schema, []arrow.RecordBatch{array.NewRecordBatch(schema, columns, rows)}}
	for _, column := range columns {
		column.Release()
	}
	if bytes := in.bytes(); bytes > inlineBytes {
		t.Fatalf("%d bytes of input are not small", bytes)
	}
	if isSmall([]*input{in}) {
		t.Error("the caller does the work of many times its input")
	}
	j := startQuantize(in, options, false)
	j.close(j.handle())
	if small := mustRead(t, weightsOf(5, 1000, 5)); !isSmall([]*input{small}) {
		t.Error("a small input is worth a goroutine")
	} else {
		small.release()
	}
}

// TestEventsOfAJob has progress reported by several goroutines.
func TestEventsOfAJob(t *testing.T) {
	nothingLeft(t)
	const layers, weights = 30, 10_000
	j := startQuantize(mustRead(t, weightsOf(layers, weights, 30)), options, true)
	var events []event
	for ended := false; !ended; {
		ended = j.wait(time.Millisecond)
		events = append(events, j.drainEvents()...)
	}
	if len(events) != layers {
		t.Fatalf("%d events of %d layers", len(events), layers)
	}
	for i, e := range events {
		if want := int64(4 * weights * (i + 1)); e[1] != want || e[2] != int64(4*weights*layers) {
			t.Errorf("event %d is %v, want %d bytes done", i, e, want)
		}
	}
	j.close(j.handle())
}

// TestAResultIsTakenOnce, and what is left in a job is released with it.
func TestAResultIsTakenOnce(t *testing.T) {
	nothingLeft(t)
	j := startQuantize(mustRead(t, weightsOf(2, 8, 2)), options, false)
	mustRead(t, resultStream(t, j)).release()
	if _, err := j.takeResult(); err == nil {
		t.Error("a result is taken twice")
	}
	j.close(j.handle())
	j = startQuantize(mustRead(t, weightsOf(2, 8, 2)), options, false)
	j.close(j.handle())
}

// reportOf gives what an export would return.
func reportOf(t *testing.T, body func() error) (r report) {
	t.Helper()
	text := guard(body)
	if text == nil {
		return r
	}
	defer paq_free(text)
	size := 0
	for *(*byte)(unsafe.Add(unsafe.Pointer(text), size)) != 0 {
		size++
	}
	if err := json.Unmarshal(unsafe.Slice((*byte)(unsafe.Pointer(text)), size), &r); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestGuard(t *testing.T) {
	_, noLayer := startQuantize(mustRead(t, weightsOf(0, 0, 1)), quant.Options{}, false).takeResult()
	_, noBudget := knapsack.Choose([][]knapsack.Cost{{{Bits: 9}}}, 8)
	for name, c := range map[string]struct {
		body            func() error
		status, message string
	}{
		"success":          {func() error { return nil }, "", ""},
		"argument":         {func() error { return noLayer }, "argument", "Invalid"},
		"budget":           {func() error { return noBudget }, "argument", "Invalid budget: 8 bits. The smallest choices take 9"},
		"source":           {func() error { return fmt.Errorf("%w: it ended", errSource) }, "source", "cannot read the Arrow data: it ended"},
		"schema":           {func() error { return quant.In("original", quant.ErrSchema) }, "schema", "In original: invalid schema"},
		"memory":           {func() error { return quant.ErrMemory }, "memory", "out of memory"},
		"layers":           {func() error { return quant.LayerErrors{{Message: "Layer 'a' is bad"}} }, "layers", "Layer 'a' is bad"},
		"panic":            {func() error { panic("of a test") }, "internal", "internal error: of a test"},
		"index":            {func() error { return errors.New(string([]byte{1}[len("out of range"):])) }, "internal", "out of range"},
		"nil pointer":      {func() error { return (*job)(nil).err }, "internal", "nil pointer"},
		"nil panic":        {func() error { panic(nil) }, "internal", "nil"},
		"handle":           {func() error { jobOf(0); return nil }, "internal", "invalid Handle"},
		"panic of a panic": {func() error { panic(&quant.PanicError{Value: "first", Stack: []byte("where")}) }, "internal", "where"},
	} {
		r := reportOf(t, c.body)
		if r.Status != c.status || !strings.Contains(r.Message, c.message) {
			t.Errorf("%s: %+v", name, r)
		}
		if c.status == "internal" && !strings.Contains(r.Message, "please report it") {
			t.Errorf("%s does not ask for a report: %s", name, r.Message)
		}
		if (len(r.Errors) > 0) != (c.status == "layers") {
			t.Errorf("%s: errors %v", name, r.Errors)
		}
	}
}

// TestAPanicInAJobIsAnError in the goroutine of a job, which no export guards. The
// inputs are released.
func TestAPanicInAJobIsAnError(t *testing.T) {
	nothingLeft(t)
	for _, weights := range []int{1, inlineBytes} {
		in := mustRead(t, weightsOf(1, weights, 1))
		j := start(func(context.Context, *job) (*quant.Result, error) { panic("of a test") }, in)
		_, err := j.takeResult()
		var panicked *quant.PanicError
		if !errors.As(err, &panicked) || panicked.Value != "of a test" {
			t.Errorf("%d weights: error %v", weights, err)
		}
		if in.batches != nil {
			t.Errorf("%d weights: the input is held", weights)
		}
		j.close(j.handle())
	}
}
