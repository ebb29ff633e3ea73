package main

// #include <stdint.h>
import "C"

import (
	"context"
	"encoding/json"
	"errors"
	"runtime/cgo"
	"strings"
	"sync"
	"time"

	"github.com/pyarrowquant/pyarrowquant/quant"
)

// job is one call that runs in the background.
type job struct {
	cancel context.CancelFunc
	done   chan struct{} // closed when result and err are set
	result *quant.Result
	err    error

	mutex  sync.Mutex
	events []event
}

// event says what is done: the name of a layer that has finished, nil where a part
// of one has; bytes done, bytes in all.
type event struct {
	layer       *string
	done, total int64
}

func (e event) MarshalJSON() ([]byte, error) { return json.Marshal([]any{e.layer, e.done, e.total}) }

func startQuantize(in *input, o quant.Options, progress bool) *job {
	return start(func(ctx context.Context, j *job) (*quant.Result, error) {
		var report quant.Progress
		if progress {
			report = j.addEvent
		}
		return quant.Quantize(ctx, in.schema, in.batches, o, &callAllocator{pool: allocator}, report)
	}, in)
}

func startDequantize(in *input, o quant.DequantizeOptions) *job {
	return start(func(ctx context.Context, _ *job) (*quant.Result, error) {
		return quant.Dequantize(ctx, in.schema, in.batches, o, &callAllocator{pool: allocator})
	}, in)
}

func startCompare(original, result *input, o quant.CompareOptions) *job {
	return start(func(ctx context.Context, _ *job) (*quant.Result, error) {
		return quant.Compare(ctx, original.table(), result.table(), o, &callAllocator{pool: allocator})
	}, original, result)
}

// inlineBytes is how much input is not worth a goroutine, and inlineWork how much
// its rows may refer to, as lists may overlap: the caller waits for well under a
// millisecond.
const (
	inlineBytes = 64 << 10
	inlineWork  = 1 << 20
)

// isSmall tells whether a call on the inputs is not worth a goroutine.
func isSmall(inputs []*input) bool {
	var bytes, rows uint64
	for _, in := range inputs {
		bytes += in.bytes()
		rows += in.rows()
	}
	return bytes <= inlineBytes && (rows <= 1 || bytes <= inlineWork/rows)
}

// start runs work, in a goroutine unless the inputs are small, and then releases
// the inputs.
func start(work func(context.Context, *job) (*quant.Result, error), inputs ...*input) *job {
	ctx, cancel := context.WithCancel(context.Background())
	j := &job{cancel: cancel, done: make(chan struct{})}
	run := func() {
		defer close(j.done)
		defer cancel()
		j.err = quant.Recovered(func() (err error) {
			defer releaseAll(inputs...)
			j.result, err = work(ctx, j)
			return err
		})
	}
	if isSmall(inputs) {
		run()
	} else {
		go run()
	}
	return j
}

func (j *job) hasEnded() bool {
	select {
	case <-j.done:
		return true
	default:
		return false
	}
}

func (j *job) handle() C.uintptr_t { return C.uintptr_t(cgo.NewHandle(j)) }

func jobOf(handle C.uintptr_t) *job { return cgo.Handle(handle).Value().(*job) }

// wait tells whether the job has ended by then.
func (j *job) wait(limit time.Duration) bool {
	if j.hasEnded() {
		return true
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-j.done:
		return true
	case <-timer.C:
		return false
	}
}

// addEvent takes what is done; of parts of layers that follow each other, the last
// says it all.
func (j *job) addEvent(layer *string, done, total int64) {
	j.mutex.Lock()
	defer j.mutex.Unlock()
	if layer != nil {
		name := strings.Clone(*layer)
		layer = &name
	}
	if last := len(j.events) - 1; last >= 0 && j.events[last].layer == nil {
		j.events = j.events[:last]
	}
	j.events = append(j.events, event{layer, done, total})
}

func (j *job) drainEvents() []event {
	j.mutex.Lock()
	defer j.mutex.Unlock()
	events := j.events
	j.events = nil
	return events
}

// takeResult waits for the job; the caller releases the result.
func (j *job) takeResult() (*quant.Result, error) {
	<-j.done
	if j.err != nil {
		return nil, j.err
	}
	result := j.result
	if result == nil {
		return nil, errors.New("internal error: the result was taken before")
	}
	j.result = nil
	return result, nil
}

func (j *job) close(handle C.uintptr_t) {
	j.cancel()
	<-j.done
	if j.result != nil {
		j.result.Release()
	}
	cgo.Handle(handle).Delete()
}
