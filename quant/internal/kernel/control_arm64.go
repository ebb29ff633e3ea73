package kernel

import "runtime"

// standardControl: round to nearest, ties to even, with subnormals, no traps. Flags of
// exceptions are in another register.
const standardControl = 0

// The FPCR register of this thread.
//
//go:noescape
func readControl() (value uint64)

// Sets the FPCR register of this thread.
//
//go:noescape
func writeControl(value uint64)

// StandardFloat is that of control_amd64.go.
func StandardFloat() (restore func()) {
	runtime.LockOSThread()
	before := readControl()
	if before == standardControl {
		return runtime.UnlockOSThread
	}
	writeControl(standardControl)
	return func() {
		writeControl(before)
		runtime.UnlockOSThread()
	}
}
