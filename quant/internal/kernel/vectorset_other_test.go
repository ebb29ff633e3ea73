//go:build !amd64 && !(arm64 && goexperiment.simd && go1.27)

package kernel

func expectedKernels() []string { return []string{"scalar"} }
