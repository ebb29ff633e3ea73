package kernel

import "golang.org/x/sys/cpu"

// vectorKernels are those whose instructions this CPU and its system have.
func vectorKernels() (kernels []Kernel) {
	x86 := &cpu.X86
	if x86.HasAVX2 && x86.HasFMA && x86.HasBMI2 { // and F16C, which is older than AVX2
		kernels = append(kernels, Kernel{Name: "avx2", Quantize: avx2.quantize, Dequantize: avx2.dequantize})
		if x86.HasAVX512F && x86.HasAVX512BW && x86.HasAVX512DQ && x86.HasAVX512VL {
			kernels = append(kernels, Kernel{Name: "avx512", Quantize: avx512.quantize, Dequantize: avx512.dequantize})
		}
	}
	return kernels
}
