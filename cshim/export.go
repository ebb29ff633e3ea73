package main

// #include "stream.h"
import "C"

import (
	"fmt"
	"unsafe"

	"github.com/apache/arrow-go/v18/arrow/cdata"

	"github.com/pyarrowquant/pyarrowquant/quant"
)

// exportResult moves the batches into a stream of ready arrays. Their buffers
// are C memory, which the arrays keep until they are released.
func exportResult(result *quant.Result, out *cdata.CArrowArrayStream) error {
	ready := C.paq_ready_new(C.int64_t(len(result.Batches)))
	if ready == nil {
		return fmt.Errorf("%w: cannot export the result", quant.ErrMemory)
	}
	exported := false
	defer func() {
		if !exported {
			C.paq_ready_free(ready)
		}
	}()
	cdata.ExportArrowSchema(result.Schema, (*cdata.CArrowSchema)(unsafe.Pointer(C.paq_ready_schema(ready))))
	for i, batch := range result.Batches {
		cdata.ExportArrowRecordBatch(batch, (*cdata.CArrowArray)(unsafe.Pointer(C.paq_ready_array(ready, C.int64_t(i)))), nil)
	}
	C.paq_ready_stream(ready, (*C.struct_ArrowArrayStream)(unsafe.Pointer(out)))
	exported = true
	return nil
}
