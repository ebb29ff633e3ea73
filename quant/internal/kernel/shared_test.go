package kernel

import "testing"

// TestFirstSharedScale has an encoder that has done nothing before.
func TestFirstSharedScale(t *testing.T) {
	for range 64 { // more than there may be in the pool
		encoders.Get()
	}
	shared, fault := ShareScale(-2, 7, Format{Encoding: FP8, ScaleDtype: ScaleFloat32})
	if fault.Kind != NoFault {
		t.Fatal(fault)
	}
	if got, want := shared.Stored(), float32(7)/448; got != want {
		t.Errorf("the scale is %g, want %g", got, want)
	}
}
