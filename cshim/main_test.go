package main

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"unsafe"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/cdata"

	"github.com/pyarrowquant/pyarrowquant/quant"
)

// Tests cannot name C's types. The helpers below take them from the exports.

func zeroOutcome[Stream, Char, Outcome any, Int ~int32](func(*Stream, *Char, Int, *Outcome) *Char) *Outcome {
	return new(Outcome)
}

// called calls paq_quantize or paq_dequantize as Python does.
func called[Stream, Char, Outcome any, Int ~int32](t *testing.T, export func(*Stream, *Char, Int, *Outcome) *Char,
	stream *cdata.CArrowArrayStream, options string, progress Int, out *Outcome) report {
	t.Helper()
	text := append([]byte(options), 0)
	return reportIn(t, export((*Stream)(unsafe.Pointer(stream)), (*Char)(unsafe.Pointer(&text[0])), progress, out))
}

func encoded(t *testing.T, o any) string {
	t.Helper()
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// readResult takes a result out of an outcome.
func readResult[Stream any](t *testing.T, result *Stream) *input {
	t.Helper()
	return mustRead(t, (*cdata.CArrowArrayStream)(unsafe.Pointer(result)))
}

// TestSmallCallsGiveTheirResultAtOnce, there and back.
func TestSmallCallsGiveTheirResultAtOnce(t *testing.T) {
	nothingLeft(t)
	out := zeroOutcome(paq_quantize)
	if r := called(t, paq_quantize, weightsOf(3, 20, 2), encoded(t, options), 0, out); r.Status != "" {
		t.Fatalf("%+v", r)
	}
	if out.job != 0 || out.skipped != nil {
		t.Fatalf("job %d, skipped %v", out.job, out.skipped)
	}
	decoded := zeroOutcome(paq_dequantize)
	stream := (*cdata.CArrowArrayStream)(unsafe.Pointer(&out.result))
	if r := called(t, paq_dequantize, stream, `{"dtype": "float16", "threads": 1}`, 0, decoded); r.Status != "" {
		t.Fatalf("%+v", r)
	}
	in := readResult(t, &decoded.result)
	defer in.release()
	if in.rows() != 3 || !arrow.TypeEqual(in.schema.Field(1).Type, arrow.ListOf(arrow.FixedWidthTypes.Float16)) {
		t.Errorf("%d rows of %v", in.rows(), in.schema)
	}
}

// TestLargeCallsGiveAJob, which is waited for, gives its events and its result once,
// and is freed.
func TestLargeCallsGiveAJob(t *testing.T) {
	nothingLeft(t)
	const layers = 40
	out := zeroOutcome(paq_quantize)
	if r := called(t, paq_quantize, weightsOf(layers, 10_000, 7), encoded(t, options), 1, out); r.Status != "" {
		t.Fatalf("%+v", r)
	}
	if out.job == 0 {
		t.Fatal("no job")
	}
	count, finished, events := 0, int32(0), out.skipped // NULL, of the type of texts
	for finished == 0 {
		waitForJob(t, paq_job_wait, out.job, &finished, &events)
		if events != nil {
			var some [][3]any
			if err := json.Unmarshal([]byte(takeText(events)), &some); err != nil {
				t.Fatal(err)
			}
			count += len(some)
		}
	}
	if count != layers {
		t.Errorf("%d events of %d layers", count, layers)
	}
	if r := reportIn(t, paq_job_result(out.job, out)); r.Status != "" {
		t.Fatalf("%+v", r)
	}
	in := readResult(t, &out.result)
	if in.rows() != layers {
		t.Errorf("%d rows", in.rows())
	}
	in.release()
	if r := reportIn(t, paq_job_result(out.job, out)); r.Status != "internal" || !strings.Contains(r.Message, "was taken before") {
		t.Errorf("%+v", r)
	}
	if r := reportIn(t, paq_job_free(out.job)); r.Status != "" {
		t.Errorf("%+v", r)
	}
}

func waitForJob[Job, Char any, Int ~int32, Long ~int64](t *testing.T, wait func(Job, Long, *Int, **Char) *Char,
	job Job, finished *int32, events **Char) {
	t.Helper()
	if r := reportIn(t, wait(job, 1, (*Int)(unsafe.Pointer(finished)), events)); r.Status != "" {
		t.Fatalf("%+v", r)
	}
}

// TestLayersThatAreLeftOut come with the result.
func TestLayersThatAreLeftOut(t *testing.T) {
	nothingLeft(t)
	schema, batches := weightBatches(3, 8, 3)
	batches[0].Column(1).(*array.List).ListValues().(*array.Float32).Float32Values()[11] = float32(math.NaN())
	stream := (&producer{schema: schema, batches: batches}).stream()
	skipping := options
	skipping.ContinueOnError = true
	out := zeroOutcome(paq_quantize)
	if r := called(t, paq_quantize, stream, encoded(t, skipping), 0, out); r.Status != "" {
		t.Fatalf("%+v", r)
	}
	releaseBatches(batches)
	var skipped quant.LayerErrors
	if err := json.Unmarshal([]byte(takeText(out.skipped)), &skipped); err != nil {
		t.Fatal(err)
	}
	if len(skipped) != 1 || skipped[0].Row != 1 || *skipped[0].Index != 3 || skipped[0].Kind != quant.KindNonFinite {
		t.Errorf("%+v", skipped)
	}
	in := readResult(t, &out.result)
	defer in.release()
	if in.rows() != 2 {
		t.Errorf("%d rows", in.rows())
	}
}

// TestUnderflows come with the result, for the layers that have some.
func TestUnderflows(t *testing.T) {
	nothingLeft(t)
	schema, batches := weightBatches(3, 8, 3)
	values := batches[0].Column(1).(*array.List).ListValues().(*array.Float32).Float32Values()
	for i := range values[8:16] {
		values[8+i] = 1e-9
	}
	rounding := options
	rounding.ScaleDtype = quant.ScaleFloat16
	out := zeroOutcome(paq_quantize)
	if r := called(t, paq_quantize, (&producer{schema: schema, batches: batches}).stream(), encoded(t, rounding), 0, out); r.Status != "" {
		t.Fatalf("%+v", r)
	}
	releaseBatches(batches)
	var underflows []quant.Underflow
	if err := json.Unmarshal([]byte(takeText(out.underflows)), &underflows); err != nil {
		t.Fatal(err)
	}
	if len(underflows) != 1 || underflows[0].Groups != 1 || underflows[0].Name == "" {
		t.Errorf("%+v", underflows)
	}
	readResult(t, &out.result).release()
}

// TestWrongOptionsReleaseTheInput and name what is wrong just as the engine does.
func TestWrongOptionsReleaseTheInput(t *testing.T) {
	nothingLeft(t)
	for text, want := range map[string]string{
		`{"method": "awq"}`: "Invalid method: 'awq'. Must be 'rtn', 'mse', 'hqq'",
		`{"bit_width": 7}`:  "Invalid bit_width: 7. Must be 2, 4, or 8 (3, 5 and 6 also work)",
		`{`:                 "invalid argument: ",
		`{"threads": "2"}`:  "invalid argument: ",
	} {
		p := &producer{}
		p.schema, p.batches = weightBatches(3, 20, 2)
		out := zeroOutcome(paq_quantize)
		r := called(t, paq_quantize, p.stream(), text, 0, out)
		if r.Status != "argument" || !strings.HasPrefix(r.Message, want) {
			t.Errorf("%s: %+v, want %s", text, r, want)
		}
		if out.job != 0 || out.skipped != nil || p.holders.Load() != 0 {
			t.Errorf("%s: job %d, %d holders", text, out.job, p.holders.Load())
		}
		releaseBatches(p.batches)
	}
}

func compared[Stream, Char, Outcome any](t *testing.T, export func(original, result *Stream, options *Char, out *Outcome) *Char,
	original, result *cdata.CArrowArrayStream, options string) (*Outcome, report) {
	t.Helper()
	text, out := append([]byte(options), 0), new(Outcome)
	streams := [2]*Stream{(*Stream)(unsafe.Pointer(original)), (*Stream)(unsafe.Pointer(result))}
	return out, reportIn(t, export(streams[0], streams[1], (*Char)(unsafe.Pointer(&text[0])), out))
}

// TestCompareReadsBothStreams, and lets both go whatever is wrong with either.
func TestCompareReadsBothStreams(t *testing.T) {
	nothingLeft(t)
	out, r := compared(t, paq_compare, weightsOf(3, 20, 2), weightsOf(3, 20, 1), `{"threads": 1}`)
	if r.Status != "" || out.job != 0 {
		t.Fatalf("%+v, job %d", r, out.job)
	}
	in := readResult(t, &out.result)
	for _, batch := range in.batches {
		for _, mse := range batch.Column(2).(*array.Float64).Float64Values() {
			if mse != 0 {
				t.Errorf("equal weights have mse %g", mse)
			}
		}
	}
	in.release()
	good := func() *producer {
		p := &producer{}
		p.schema, p.batches = weightBatches(3, 20, 2)
		return p
	}
	bad := func() *producer {
		p := good()
		p.err = errSource
		return p
	}
	for name, c := range map[string]struct {
		original, result *producer
		options          string
		status, message  string
	}{
		"original": {bad(), good(), `{"threads": 1}`, "source", "In original: cannot read the Arrow data"},
		"result":   {good(), bad(), `{"threads": 1}`, "source", "In result: cannot read the Arrow data"},
		"both":     {bad(), bad(), `{"threads": 1}`, "source", "In original: cannot read the Arrow data"},
		"options":  {good(), good(), `{"kernel": "x"}`, "argument", "Invalid kernel of PYARROWQUANT_KERNEL: 'x'"},
	} {
		_, r := compared(t, paq_compare, c.original.stream(), c.result.stream(), c.options)
		if r.Status != c.status || !strings.HasPrefix(r.Message, c.message) {
			t.Errorf("%s: %+v", name, r)
		}
		for _, p := range []*producer{c.original, c.result} {
			if p.holders.Load() != 0 {
				t.Errorf("%s: %d holders", name, p.holders.Load())
			}
			releaseBatches(p.batches)
		}
	}
}

func allocated[Char any](t *testing.T, export func(*Char, **Char) *Char, problem string) (choices string, r report) {
	t.Helper()
	text := append([]byte(problem), 0)
	var out *Char
	if r = reportIn(t, export((*Char)(unsafe.Pointer(&text[0])), &out)); out != nil {
		choices = takeText(out)
	}
	return choices, r
}

func TestAllocateExport(t *testing.T) {
	layers := `{"layers": [[{"bits": 4, "error": 2}, {"bits": 8, "error": 1}], [{"bits": 4, "error": 9}, {"bits": 8, "error": 1}]], "budget": `
	if choices, r := allocated(t, paq_allocate, layers+"12}"); choices != "[0,1]" || r.Status != "" {
		t.Errorf("%s, %+v", choices, r)
	}
	if choices, r := allocated(t, paq_allocate, layers+"7}"); choices != "" || r.Status != "argument" || r.Message != "Invalid budget: 7 bits. The smallest choices take 8" {
		t.Errorf("%s, %+v", choices, r)
	}
}
