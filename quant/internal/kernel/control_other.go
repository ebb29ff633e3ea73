//go:build !amd64 && !arm64

package kernel

// StandardFloat does nothing here: threads are taken as they are.
func StandardFloat() (restore func()) { return func() {} }
