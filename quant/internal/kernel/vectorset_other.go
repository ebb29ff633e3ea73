//go:build !amd64 && !(arm64 && goexperiment.simd)

package kernel

// vectorSets are none here: the reference does everything.
func vectorSets() []*vectorSet { return nil }
