//go:build testhooks

package quant

// testHook panics in the worker that gets a layer of this name.
func testHook(name string) {
	if name == "pyarrowquant-panic-worker" {
		panic("a worker panics for a test")
	}
}
