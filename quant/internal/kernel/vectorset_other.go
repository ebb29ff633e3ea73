//go:build !amd64

package kernel

// vectorSets are none here: the reference does everything.
func vectorSets() []*vectorSet { return nil }
