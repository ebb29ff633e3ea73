package kernel

import "runtime"

// standardControl: round to nearest, ties to even, with subnormals, no traps.
const (
	standardControl = 0x1f80
	exceptionFlags  = 0x003f // which operations set
)

// StandardFloat keeps the goroutine on its thread and has floating-point
// operations round there as IEEE 754 has it by default, until restore is
// called. Other parts of a process may have set a thread, and so those that it
// starts, to another rounding or to flush subnormals to zero.
func StandardFloat() (restore func()) {
	runtime.LockOSThread()
	before := readControl()
	if before&^exceptionFlags == standardControl {
		return runtime.UnlockOSThread
	}
	writeControl(standardControl)
	return func() {
		writeControl(before)
		runtime.UnlockOSThread()
	}
}
