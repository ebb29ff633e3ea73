//go:build unix

package kernel

import (
	"os"
	"syscall"
	"testing"
)

// fenced is memory behind which nothing may be read.
type fenced struct{ bytes []byte }

func newFenced(t *testing.T, size int) fenced {
	page := os.Getpagesize()
	whole := (size + page - 1) / page * page
	mapped, err := syscall.Mmap(-1, 0, whole+page, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Munmap(mapped) })
	if err := syscall.Mprotect(mapped[whole:], syscall.PROT_NONE); err != nil {
		t.Fatal(err)
	}
	return fenced{mapped[:whole:whole]}
}

// last is a copy at the end of the memory.
func (f fenced) last(content []byte) []byte {
	place := f.bytes[len(f.bytes)-len(content):]
	copy(place, content)
	return place
}
