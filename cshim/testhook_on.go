//go:build testhooks

package main

import (
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/pyarrowquant/pyarrowquant/quant"
)

// exportHook panics if the result has a layer of this name.
func exportHook(result *quant.Result) {
	for _, batch := range result.Batches {
		names := batch.Column(0).(*array.String)
		for row := range names.Len() {
			if names.Value(row) == "pyarrowquant-panic-export" {
				panic("an export panics for a test")
			}
		}
	}
}
