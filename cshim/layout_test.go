package main

import (
	"bytes"
	"strings"
	"testing"
	"unsafe"
)

// layer has the fields of paq_layer.
type layer struct {
	rows, groups, rowBytes, bitWidth int64
	codes, scales, zeroPoints        unsafe.Pointer
	superGroups                      int64
	superScales, superMinimums       unsafe.Pointer
}

// laidOut calls the export, whose types of C cannot be named here.
func laidOut[Layer, Char any, Int ~int64](t *testing.T, export func(*Layer, *Char, unsafe.Pointer, Int) *Char, l layer, options string, out []byte) report {
	t.Helper()
	if unsafe.Sizeof(l) != unsafe.Sizeof(*new(Layer)) {
		t.Fatal("layer is not paq_layer")
	}
	text := append([]byte(options), 0)
	return reportIn(t, export((*Layer)(unsafe.Pointer(&l)), (*Char)(unsafe.Pointer(&text[0])), unsafe.Pointer(&out[0]), Int(len(out))))
}

// TestLayOutExport: parts of a layer of 4 rows of 8 codes of 4 bits in one group.
func TestLayOutExport(t *testing.T) {
	codes := []byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}
	scales, zeros := []float32{1, 2, 3, 4}, []float32{1, 2, 3, 15}
	l := layer{4, 1, 4, 4, unsafe.Pointer(&codes[0]), unsafe.Pointer(&scales[0]), unsafe.Pointer(&zeros[0]), 0, nil, nil}
	for options, want := range map[string][]byte{
		`{"part": "codes", "width": 5, "threads": 2}`:               {1, 2, 3, 4, 0, 5, 6, 7, 8, 0, 9, 10, 11, 12, 0, 13, 14, 15, 16, 0},
		`{"part": "zero_points packed down", "threads": 2}`:         {0x21, 0xf3, 0, 0},
		`{"part": "packed zero_points", "threads": 1}`:              {1, 2, 3, 15},
		`{"part": "scales", "dtype": "bfloat16", "threads": 1}`:     {0x80, 0x3f, 0, 0x40, 0x40, 0x40, 0x80, 0x40},
		`{"part": "zero_points", "dtype": "float16", "threads": 1}`: {0, 0x3c, 0, 0x40, 0, 0x42, 0x80, 0x4b},
		`{"part": "biases", "dtype": "float16", "threads": 1}`:      {0, 0xbc, 0, 0xc4, 0x80, 0xc8, 0x80, 0xd3},
	} {
		out := bytes.Repeat([]byte{0xee}, len(want))
		if r := laidOut(t, paq_lay_out, l, options, out); r.Status != "" || !bytes.Equal(out, want) {
			t.Errorf("%s: %x, %+v", options, out, r)
		}
	}
}

func TestLayOutRefuses(t *testing.T) {
	value := []float32{1}
	place := unsafe.Pointer(&value[0])
	for name, l := range map[string]layer{
		"negative":  {-1, 1, 1, 4, place, place, place, 0, nil, nil},
		"too large": {1 << 31, 1, 1, 4, place, place, place, 0, nil, nil},
		"super":     {1, 1, 1, 4, place, place, place, -1, place, nil},
		"bits":      {1, 1, 1, 7, place, place, place, 0, nil, nil},
	} {
		if r := laidOut(t, paq_lay_out, l, `{"part": "codes", "width": 1, "threads": 1}`, []byte{0}); r.Status != "argument" {
			t.Errorf("%s: %+v", name, r)
		}
	}
	good := layer{1, 1, 1, 4, place, place, place, 0, nil, nil}
	for _, options := range []string{`{`, `{"part": "weights", "threads": 1}`, `{"part": "scales", "dtype": "float8", "threads": 1}`, `{"part": "codes", "width": 2, "threads": 1}`} {
		if r := laidOut(t, paq_lay_out, good, options, []byte{0}); r.Status != "argument" || strings.Contains(r.Message, "defect") {
			t.Errorf("%s: %+v", options, r)
		}
	}
}
