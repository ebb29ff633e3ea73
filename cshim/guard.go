package main

// #include <stdlib.h>
import "C"

import (
	"encoding/json"
	"errors"

	"github.com/pyarrowquant/pyarrowquant/quant"
	"github.com/pyarrowquant/pyarrowquant/quant/knapsack"
)

// report is an error on its way to C. Status chooses the exception.
type report struct {
	Status  string            `json:"status"`
	Message string            `json:"message"`
	Errors  quant.LayerErrors `json:"errors"` // only with status "layers"
}

// guard runs the body of an export: no panic gets past it.
func guard(body func() error) *C.char {
	if err := quant.Recovered(body); err != nil {
		return C.CString(encodeReport(err))
	}
	return nil
}

func encodeReport(err error) string {
	r := report{Status: statusOf(err), Message: err.Error()}
	errors.As(err, &r.Errors)
	var panicked *quant.PanicError
	if errors.As(err, &panicked) {
		r.Message += "\n\nThis is a defect; please report it with these lines:\n" + string(panicked.Stack)
	}
	encoded, err := json.Marshal(r)
	if err != nil {
		return `{"status": "internal", "message": "internal error: cannot encode an error report"}`
	}
	return string(encoded)
}

func statusOf(err error) string {
	var failed quant.LayerErrors
	switch {
	case errors.As(err, &failed):
		return "layers"
	case errors.Is(err, quant.ErrArgument), errors.Is(err, knapsack.ErrBudget):
		return "argument"
	case errors.Is(err, quant.ErrSchema):
		return "schema"
	case errors.Is(err, quant.ErrMemory):
		return "memory"
	case errors.Is(err, quant.ErrUnreadable):
		return "unreadable"
	case errors.Is(err, errSource):
		return "source"
	default:
		return "internal"
	}
}
