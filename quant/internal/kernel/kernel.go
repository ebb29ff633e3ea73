// Package kernel turns blocks of weights into packed codes and back.
//
// The scalar kernel is the reference: it is compiled on every machine, and
// every other kernel gives the same bytes, scales, zero-points and sums.
//
// A group is quantized in three stages, which all kernels have: its range, the
// smallest and the largest weight; its parameters, which the method chooses from
// the range, and maybe from the weights; its codes.
package kernel

import "slices"

// Kernel is one implementation. Its functions keep no state and may be called
// by many goroutines at once.
type Kernel struct {
	Name       string
	Quantize   func(*Block) Fault
	Dequantize func(*CodedBlock) Fault

	// Range and Code are the first and the last stage of RoundToNearest, for a part of
	// a group that is worked on by many: the block is one row, whose length is a
	// multiple of 8 unless it ends the group. Code takes what Fit, the stage between
	// them, made of all parts' ranges, and writes no scale.
	Range func(*Block) (lo, hi float32, fault Fault)
	Code  func(*Block, Parameters)

	// TrialErrors are of a part of weights that share a scale, which is to be chosen: of whole
	// rows, or of a part of one.
	TrialErrors func(*Block) TrialErrors

	steps     *encoderSteps
	addTails  [vectorElements]addTails // none: by the reference
	allStored func(*Description, *StoredGroups) bool
}

// kernels are those that this CPU can run, which is found out once.
var kernels = append([]Kernel{Scalar}, vectorKernels()...)

// All returns the kernels that this CPU can run, the reference first and the
// fastest last.
func All() []Kernel { return slices.Clone(kernels) }

// Named returns the kernel of this name, or the fastest for "".
func Named(name string) (k Kernel, ok bool) {
	for _, k = range kernels {
		if k.Name == name {
			return k, true
		}
	}
	return k, name == ""
}
