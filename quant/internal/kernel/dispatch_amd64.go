package kernel

import "golang.org/x/sys/cpu"

// features are those of a CPU that vector kernels need; avx2 and avx512 are of its
// system, too.
type features struct {
	avx2, fma, bmi2, f16c bool
	avx512                bool // F, BW, DQ and VL
}

// present are the features of this CPU.
var present = features{
	avx2: cpu.X86.HasAVX2, fma: cpu.X86.HasFMA, bmi2: cpu.X86.HasBMI2, f16c: hasF16C(),
	avx512: cpu.X86.HasAVX512F && cpu.X86.HasAVX512BW && cpu.X86.HasAVX512DQ && cpu.X86.HasAVX512VL,
}

// vectorKernels are those whose instructions this CPU and its system have.
func vectorKernels() []Kernel { return present.kernels() }

func (f features) kernels() (kernels []Kernel) {
	if f.avx2 && f.fma && f.bmi2 && f.f16c {
		kernels = append(kernels, avx2.kernel("avx2"))
		if f.avx512 {
			kernels = append(kernels, avx512.kernel("avx512"))
		}
	}
	return kernels
}

func (v *vectorSet) kernel(name string) Kernel {
	return Kernel{Name: name, Quantize: v.quantize, Dequantize: v.dequantize, Range: v.rangePart, Code: v.codePart}
}
