package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/pyarrowquant/pyarrowquant/quant"
)

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
		if want := int64(4 * weights * (i + 1)); e.done != want || e.total != int64(4*weights*layers) {
			t.Errorf("event %d is %v, want %d bytes done", i, e, want)
		}
	}
	j.close(j.handle())
}

// TestEventsOfParts has parts of a layer between layers that finish.
func TestEventsOfParts(t *testing.T) {
	a, b := "a", "b"
	j := &job{}
	for i, name := range []*string{nil, nil, &a, nil, &b, nil, nil} {
		j.addEvent(name, int64(i), 7)
	}
	encoded, err := json.Marshal(j.drainEvents())
	if want := `[["a",2,7],["b",4,7],[null,6,7]]`; err != nil || string(encoded) != want {
		t.Errorf("events are %s, %v, want %s", encoded, err, want)
	}
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
