// Package main is the C edge: a shared library that moves Arrow streams in and
// out of package quant. Every export but paq_free returns NULL, or a report
// of what went wrong as JSON, which the caller frees with paq_free.
package main

// #include <stdint.h>
// #include <stdlib.h>
// #include "stream.h"
import "C"

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"time"
	"unsafe"

	"github.com/apache/arrow-go/v18/arrow/cdata"

	"github.com/pyarrowquant/pyarrowquant/quant"
	"github.com/pyarrowquant/pyarrowquant/quant/knapsack"
)

// gcPercent lets the heap, which holds only what describes layers, grow to some
// MiB before the garbage collector runs: a call on many layers ends before.
const gcPercent = 400

// spareProcessors is how many times as many processors Go has as there are. One stays with a thread
// of the caller that has left Go until Go's monitor takes it away, up to 10 ms later, while workers
// of other calls have none. How many work is up to their threads.
const spareProcessors = 2

func init() {
	debug.SetGCPercent(gcPercent)
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(spareProcessors * runtime.GOMAXPROCS(0))
	}
}

func main() {}

// paq_quantize reads the whole stream, which it moves, and starts to quantize
// its layers. options is quant.Options as JSON; with progress, paq_job_wait
// gives events. The caller ends the job with paq_job_free.
//
//export paq_quantize
func paq_quantize(source *C.struct_ArrowArrayStream, options *C.char, progress C.int, out *C.struct_paq_outcome) *C.char {
	return startJob(source, options, out, func(in *input, o quant.Options) *job {
		return startQuantize(in, o, progress != 0)
	})
}

// paq_dequantize is paq_quantize for a result; options is
// quant.DequantizeOptions as JSON. There are no events.
//
//export paq_dequantize
func paq_dequantize(source *C.struct_ArrowArrayStream, options *C.char, progress C.int, out *C.struct_paq_outcome) *C.char {
	return startJob(source, options, out, startDequantize)
}

// paq_compare is paq_dequantize for a table of weights and a result, whose errors
// it finds; options is quant.CompareOptions as JSON. It moves both streams.
//
//export paq_compare
func paq_compare(original, result *C.struct_ArrowArrayStream, options *C.char, out *C.struct_paq_outcome) *C.char {
	return guard(func() error {
		weights, err := readStream(streamOf(original))
		decoded, resultErr := readStream(streamOf(result))
		started := false
		defer func() {
			if !started {
				releaseAll(weights, decoded)
			}
		}()
		if err != nil {
			return quant.In("original", err)
		}
		if resultErr != nil {
			return quant.In("result", resultErr)
		}
		var o quant.CompareOptions
		if err := parseOptions(options, &o); err != nil {
			return err
		}
		started = true
		return giveJob(startCompare(weights, decoded, o), out)
	})
}

func startJob[Options any](source *C.struct_ArrowArrayStream, options *C.char, out *C.struct_paq_outcome, start func(*input, Options) *job) *C.char {
	return guard(func() error {
		in, err := readStream(streamOf(source))
		if err != nil {
			return err
		}
		var o Options
		if err := parseOptions(options, &o); err != nil {
			in.release()
			return err
		}
		return giveJob(start(in, o), out)
	})
}

// giveJob gives the result of a job that has ended at once, else the job.
func giveJob(j *job, out *C.struct_paq_outcome) error {
	if j.hasEnded() && len(j.events) == 0 {
		return giveResult(j, out)
	}
	out.job = j.handle()
	return nil
}

// giveResult waits for the job and moves its result out.
func giveResult(j *job, out *C.struct_paq_outcome) error {
	result, err := j.takeResult()
	if err != nil {
		return err
	}
	defer result.Release()
	exportHook(result)
	skipped, err := textOf(result.Skipped)
	if err != nil {
		return err
	}
	underflows, err := textOf(result.Underflows)
	if err == nil {
		err = exportResult(result, streamOf(&out.result))
	}
	if err != nil {
		C.free(unsafe.Pointer(skipped))
		C.free(unsafe.Pointer(underflows))
		return err
	}
	out.skipped, out.underflows = skipped, underflows
	return nil
}

// textOf gives a list as JSON, or NULL if it is empty.
func textOf[List ~[]Element, Element any](list List) (*C.char, error) {
	if len(list) == 0 {
		return nil, nil
	}
	encoded, err := json.Marshal(list)
	if err != nil {
		return nil, err
	}
	return C.CString(string(encoded)), nil
}

// paq_validate checks the options, which are quant.Options as JSON, and the
// schema of a table of weights, which it moves.
//
//export paq_validate
func paq_validate(schema *C.struct_ArrowSchema, options *C.char) *C.char {
	return guard(func() error {
		fields, err := cdata.ImportCArrowSchema((*cdata.CArrowSchema)(unsafe.Pointer(schema)))
		if err != nil {
			return fmt.Errorf("%w: %w", quant.ErrSchema, err)
		}
		var o quant.Options
		if err := parseOptions(options, &o); err != nil {
			return err
		}
		return quant.Validate(fields, o)
	})
}

// paq_allocate chooses one of the costs of each layer. problem is JSON: layers, a
// list of each layer's list of knapsack.Cost, and budget, in bits. choices is set to
// a JSON list of positions, to free with paq_free.
//
//export paq_allocate
func paq_allocate(problem *C.char, choices **C.char) *C.char {
	return guard(func() error {
		var p struct {
			Layers [][]knapsack.Cost `json:"layers"`
			Budget int64             `json:"budget"`
		}
		if err := parseOptions(problem, &p); err != nil {
			return err
		}
		chosen, err := knapsack.Choose(p.Layers, p.Budget)
		if err != nil {
			return err
		}
		encoded, err := json.Marshal(chosen)
		if err == nil {
			*choices = C.CString(string(encoded))
		}
		return err
	})
}

// paq_job_wait waits until the job ends, or for some milliseconds. events is
// set to NULL or to what was done since the last call, a JSON list of [layer_name,
// bytes done, bytes in all], to free with paq_free: layers that have finished, and
// last perhaps a part of one, with null for layer_name.
//
//export paq_job_wait
func paq_job_wait(handle C.uintptr_t, milliseconds C.int64_t, finished *C.int, events **C.char) *C.char {
	return guard(func() error {
		j := jobOf(handle)
		*finished = 0
		if j.wait(time.Duration(milliseconds) * time.Millisecond) {
			*finished = 1
		}
		*events = nil
		if drained := j.drainEvents(); len(drained) > 0 {
			encoded, err := json.Marshal(drained)
			if err != nil {
				return err
			}
			*events = C.CString(string(encoded))
		}
		return nil
	})
}

// paq_job_result waits for the job and moves its result into out.
//
//export paq_job_result
func paq_job_result(handle C.uintptr_t, out *C.struct_paq_outcome) *C.char {
	return guard(func() error { return giveResult(jobOf(handle), out) })
}

// paq_job_free cancels the job if it still runs, waits for its end, and frees
// all that it holds.
//
//export paq_job_free
func paq_job_free(handle C.uintptr_t) *C.char {
	return guard(func() error {
		jobOf(handle).close(handle)
		return nil
	})
}

// paq_allocated_bytes gives what results of this library hold at the moment.
//
//export paq_allocated_bytes
func paq_allocated_bytes(out *C.int64_t) *C.char {
	return guard(func() error {
		*out = C.int64_t(allocator.AllocatedBytes())
		return nil
	})
}

// paq_release_memory gives memory that is kept for the next call back to the
// system.
//
//export paq_release_memory
func paq_release_memory() *C.char { return guard(allocator.empty) }

// paq_free frees a text that an export gave.
//
//export paq_free
func paq_free(text *C.char) { C.free(unsafe.Pointer(text)) }

// streamOf is the same stream by the type that cdata has for it.
func streamOf(stream *C.struct_ArrowArrayStream) *cdata.CArrowArrayStream {
	return (*cdata.CArrowArrayStream)(unsafe.Pointer(stream))
}

func parseOptions(text *C.char, into any) error {
	err := json.Unmarshal([]byte(C.GoString(text)), into)
	if err == nil || errors.Is(err, quant.ErrArgument) { // which says what is wrong with an option
		return err
	}
	return fmt.Errorf("%w: %w", quant.ErrArgument, err)
}
