package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"github.com/pyarrowquant/pyarrowquant/quant"
	"github.com/pyarrowquant/pyarrowquant/quant/knapsack"
)

// reportOf gives what an export would return.
func reportOf(t *testing.T, body func() error) report {
	t.Helper()
	return reportIn(t, guard(body))
}

// reportIn reads and frees the text that an export gave, nil being an empty report.
// Tests cannot name C's types, and so leave them to be inferred.
func reportIn[Char any](t *testing.T, text *Char) (r report) {
	t.Helper()
	if text == nil {
		return r
	}
	if err := json.Unmarshal([]byte(takeText(text)), &r); err != nil {
		t.Fatal(err)
	}
	return r
}

// takeText copies and frees a text.
func takeText[Char any](text *Char) string {
	size := 0
	for *(*byte)(unsafe.Add(unsafe.Pointer(text), size)) != 0 {
		size++
	}
	copied := strings.Clone(unsafe.String((*byte)(unsafe.Pointer(text)), size))
	freeText(paq_free, unsafe.Pointer(text))
	return copied
}

func freeText[Char any](free func(*Char), text unsafe.Pointer) { free((*Char)(text)) }

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

// TestReportsHaveAllOfAnError as Python reads it: row and index of layers, the text of
// an error around others, and no bytes that JSON cannot have.
func TestReportsHaveAllOfAnError(t *testing.T) {
	name, index := "h.0.w", int64(50)
	failed := quant.LayerErrors{
		{Name: &name, Row: 3, Index: &index, Kind: quant.KindNonFinite, Message: "Layer 'h.0.w' contains NaN"},
		{Row: 4, Kind: quant.KindNull, Message: "Layer in row 4: layer_name is null"},
	}
	var raw map[string]any
	if err := json.Unmarshal([]byte(encodeReport(failed)), &raw); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"status": "layers", "message": "2 layers failed:\n  Layer 'h.0.w' contains NaN\n  Layer in row 4: layer_name is null",
		"errors": []any{
			map[string]any{"layer_name": "h.0.w", "row": 3.0, "index": 50.0, "kind": "non_finite", "message": "Layer 'h.0.w' contains NaN"},
			map[string]any{"layer_name": nil, "row": 4.0, "index": nil, "kind": "null", "message": "Layer in row 4: layer_name is null"},
		},
	}
	if !reflect.DeepEqual(raw, want) {
		t.Errorf("got %v\nwant %v", raw, want)
	}
	for name, c := range map[string]struct {
		err             error
		status, message string
	}{
		"layers of a table": {quant.In("result", failed), "layers", "In result: 2 layers failed:"},
		"source and others": {fmt.Errorf("%w: %w", errSource, quant.ErrMemory), "memory", "cannot read the Arrow data: out of memory"},
		"no UTF-8":          {errors.New("a \xff b"), "internal", "a \ufffd b"},
	} {
		r := reportOf(t, func() error { return c.err })
		if r.Status != c.status || !strings.HasPrefix(r.Message, c.message) || len(r.Errors) != map[bool]int{true: 2}[c.status == "layers"] {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

// TestPanicsAreReportedAtOnce has many exports fail at the same time: each report has
// the stack of its own panic.
func TestPanicsAreReportedAtOnce(t *testing.T) {
	var group sync.WaitGroup
	for id := range 8 {
		group.Go(func() {
			for round := range 20 {
				want := fmt.Sprintf("internal error: %d of %d", round, id)
				r := reportOf(t, func() error { panic(fmt.Sprintf("%d of %d", round, id)) })
				if r.Status != "internal" || !strings.HasPrefix(r.Message, want+"\n") || !strings.Contains(r.Message, "guard_test.go") {
					t.Errorf("%+v, want %s", r, want)
				}
			}
		})
	}
	group.Wait()
}
