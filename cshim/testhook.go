//go:build !testhooks

package main

import "github.com/pyarrowquant/pyarrowquant/quant"

// exportHook does nothing but in a build for tests.
func exportHook(*quant.Result) {}
