package kernel

import "golang.org/x/sys/cpu"

// vectorKernels are those whose instructions this CPU and its system have.
func vectorKernels() (kernels []Kernel) {
	x86 := &cpu.X86
	if x86.HasAVX2 && x86.HasFMA && x86.HasBMI2 { // and F16C, which is older than AVX2
		kernels = append(kernels, avx2.kernel("avx2"))
		if x86.HasAVX512F && x86.HasAVX512BW && x86.HasAVX512DQ && x86.HasAVX512VL {
			kernels = append(kernels, avx512.kernel("avx512"))
		}
	}
	return kernels
}

func (v *vectorSet) kernel(name string) Kernel {
	return Kernel{Name: name, Quantize: v.quantize, Dequantize: v.dequantize, Range: v.rangePart, Code: v.codePart}
}
