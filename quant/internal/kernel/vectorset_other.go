//go:build !amd64 && !(arm64 && goexperiment.simd && go1.27)

package kernel

// vectorSets are none here: the reference does everything.
func vectorSets() []*vectorSet { return nil }
