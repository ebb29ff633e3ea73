package kernel

import (
	"math"
	"runtime"
	"testing"
)

// TestStandardFloat has a thread flush subnormals and round towards zero before.
func TestStandardFloat(t *testing.T) {
	const flush, towardsZero = 1 << 24, 3 << 22
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer writeControl(readControl())
	for _, other := range []uint64{standardControl, flush, towardsZero, flush | towardsZero} {
		writeControl(other)
		restore := StandardFloat()
		if tiny := half32(math.SmallestNonzeroFloat32 * 2); tiny != math.SmallestNonzeroFloat32 {
			t.Errorf("control %#x: half of the smallest float32 but one is %g", other, tiny)
		}
		if third := quotient(2, 3); third != float32(2.0/3) {
			t.Errorf("control %#x: two thirds are %g", other, third)
		}
		restore()
		if got := readControl(); got != other {
			t.Errorf("control %#x is restored as %#x", other, got)
		}
	}
	writeControl(flush | towardsZero)
	if half32(math.SmallestNonzeroFloat32*2) != 0 || quotient(2, 3) == float32(2.0/3) {
		t.Error("writing the control changes nothing")
	}
}

// The compiler would know the results.

//go:noinline
func half32(x float32) float32 { return x * 0.5 }

//go:noinline
func quotient(x, y float32) float32 { return x / y }
