//go:build !amd64 && !(arm64 && goexperiment.simd)

package kernel

func expectedKernels() []string { return []string{"scalar"} }
