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
	rows, groups, rowBytes := int(layer.rows), int(layer.groups), int(layer.row_bytes)
	const most = 1 << 31 // so that products do not overflow
	if rows < 0 || groups < 0 || rowBytes < 0 || rows >= most || groups >= most || rowBytes >= most {
		return layout.Layer{}, fmt.Errorf("%w: a layer of %d rows, %d groups and %d bytes a row", quant.ErrArgument, rows, groups, rowBytes)
	}
	return layout.Layer{
		Rows:       rows,
		Groups:     groups,
		RowBytes:   rowBytes,
		BitWidth:   int(layer.bit_width),
		Codes:      unsafe.Slice((*byte)(layer.codes), rows*rowBytes),
		Scales:     unsafe.Slice((*float32)(unsafe.Pointer(layer.scales)), rows*groups),
		ZeroPoints: unsafe.Slice((*float32)(unsafe.Pointer(layer.zero_points)), rows*groups),
	}, nil
}
