package main

// #include "layout.h"
import "C"

import (
	"fmt"
	"unsafe"

	"github.com/pyarrowquant/pyarrowquant/quant"
	"github.com/pyarrowquant/pyarrowquant/quant/layout"
)

// paq_lay_out writes a part of a layer into out, in the order that an engine wants.
// options is layout.Options as JSON.
//
//export paq_lay_out
func paq_lay_out(layer *C.struct_paq_layer, options *C.char, out unsafe.Pointer, outBytes C.int64_t) *C.char {
	return guard(func() error {
		var o layout.Options
		if err := parseOptions(options, &o); err != nil {
			return err
		}
		l, err := layerOf(layer)
		if err != nil {
			return err
		}
		return layout.Lay(unsafe.Slice((*byte)(out), int(outBytes)), l, o)
	})
}

// layerOf is the layer in the caller's memory.
func layerOf(layer *C.struct_paq_layer) (layout.Layer, error) {
	rows, groups, rowBytes, superGroups := int(layer.rows), int(layer.groups), int(layer.row_bytes), int(layer.super_groups)
	const most = 1 << 31 // so that products do not overflow
	if min(rows, groups, rowBytes, superGroups) < 0 || max(rows, groups, rowBytes, superGroups) >= most {
		return layout.Layer{}, fmt.Errorf("%w: a layer of %d rows, %d groups and %d bytes a row", quant.ErrArgument, rows, groups, rowBytes)
	}
	l := layout.Layer{
		Rows:       rows,
		Groups:     groups,
		RowBytes:   rowBytes,
		BitWidth:   int(layer.bit_width),
		Codes:      unsafe.Slice((*byte)(layer.codes), rows*rowBytes),
		Scales:     unsafe.Slice((*float32)(unsafe.Pointer(layer.scales)), rows*groups),
		ZeroPoints: unsafe.Slice((*float32)(unsafe.Pointer(layer.zero_points)), rows*groups),
	}
	if superGroups > 0 {
		l.SuperScales = unsafe.Slice((*float32)(unsafe.Pointer(layer.super_scales)), rows*superGroups)
		if layer.super_minimums != nil {
			l.SuperMinimums = unsafe.Slice((*float32)(unsafe.Pointer(layer.super_minimums)), rows*superGroups)
		}
	}
	return l, nil
}
