package main

import (
	"sync"
	"testing"
	"unsafe"
)

// emptied gives a pool of its own to a test, which has to free what it allocates.
func emptied(t *testing.T) *pool {
	p := newPool()
	t.Cleanup(func() {
		if alive := p.AllocatedBytes(); alive != 0 || len(p.sizes) != 0 {
			t.Errorf("%d bytes are left, %d large blocks", alive, len(p.sizes))
		}
		if err := p.empty(); err != nil || p.keeping != 0 || len(p.kept) != 0 {
			t.Errorf("an emptied pool keeps %d bytes in %d blocks: %v", p.keeping, len(p.kept), err)
		}
	})
	return p
}

// TestOneCallAllocatesInParallel has the goroutines of one call allocate at once, as
// the columns of a large result do: what the pool may keep is the sum of all.
func TestOneCallAllocatesInParallel(t *testing.T) {
	const goroutines, blocks = 8, 25
	p := emptied(t)
	call := &callAllocator{pool: p}
	var group sync.WaitGroup
	for range goroutines {
		group.Go(func() {
			for range blocks {
				call.Free(call.Allocate(largeBytes))
			}
		})
	}
	group.Wait()
	if want := goroutines * blocks * wholePages(largeBytes); call.total != want || p.bound != want {
		t.Errorf("the call took %d bytes, the pool may keep %d; want %d", call.total, p.bound, want)
	}
}

// TestManyCallsShareAPool has each goroutine be a call with blocks of its own size,
// small and large: no two blocks that are alive overlap.
func TestManyCallsShareAPool(t *testing.T) {
	const goroutines, rounds = 8, 30
	p := emptied(t)
	var group sync.WaitGroup
	for id := range goroutines {
		group.Go(func() {
			for round := range rounds {
				call := &callAllocator{pool: p}
				block := call.Allocate((round%3)*largeBytes + 1 + id)
				for at := 0; at < len(block); at += 4 << 10 {
					block[at] = byte(id)
				}
				for at := 0; at < len(block); at += 4 << 10 {
					if block[at] != byte(id) {
						t.Errorf("another call wrote into a block of %d bytes", len(block))
					}
				}
				call.Free(block)
			}
		})
	}
	group.Wait()
}

func TestBlocksComeBackToTheNextCall(t *testing.T) {
	p := emptied(t)
	first := &callAllocator{pool: p}
	block := first.Allocate(5 * largeBytes)
	address := unsafe.SliceData(block)
	first.Free(block)
	if p.keeping != wholePages(5*largeBytes) {
		t.Fatalf("the pool keeps %d bytes of %d", p.keeping, len(block))
	}
	second := &callAllocator{pool: p}
	again, other := second.Allocate(5*largeBytes-1), second.Allocate(5*largeBytes)
	if unsafe.SliceData(again) != address || unsafe.SliceData(other) == address {
		t.Error("the kept block is not used once")
	}
	second.Free(again)
	second.Free(other)
	small := &callAllocator{pool: p}
	block = small.Allocate(largeBytes)
	if unsafe.SliceData(block) == address || p.keeping != 2*wholePages(5*largeBytes) {
		t.Error("a block that is much too large is used for a smaller one")
	}
	small.Free(block)
	if p.keeping > p.bound || p.bound != 2*wholePages(5*largeBytes) {
		t.Errorf("%d bytes are kept, %d are allowed: the largest recent call took two blocks", p.keeping, p.bound)
	}
}

func TestBlocksAreAlignedAndCounted(t *testing.T) {
	p := emptied(t)
	call := &callAllocator{pool: p}
	if call.Allocate(0) != nil {
		t.Error("memory of no bytes")
	}
	call.Free(nil)
	for _, size := range []int{1, 63, 64, 100, largeBytes - 1, largeBytes, largeBytes + 1, 3*largeBytes + 7} {
		block := call.Allocate(size)
		if address := uintptr(unsafe.Pointer(unsafe.SliceData(block))); len(block) != size || address%64 != 0 {
			t.Errorf("%d bytes at %#x, want %d", len(block), address, size)
		}
		for i := range block {
			block[i] = byte(i)
		}
		if alive := p.AllocatedBytes(); alive != int64(size) {
			t.Errorf("%d bytes are counted, want %d", alive, size)
		}
		block = call.Reallocate(2*size, block)
		for i, b := range block[:size] {
			if b != byte(i) {
				t.Fatalf("%d bytes moved: byte %d is %d", size, i, b)
			}
		}
		call.Free(block)
	}
}

// TestNoMemoryPanics asks for more than any address space has, and leaves the pool
// usable.
func TestNoMemoryPanics(t *testing.T) {
	p := emptied(t)
	call := &callAllocator{pool: p}
	call.Free(call.Allocate(largeBytes))
	func() {
		defer func() {
			if recover() == nil {
				t.Error("no panic")
			}
		}()
		call.Allocate(1 << 60)
	}()
	if p.keeping != 0 {
		t.Errorf("%d bytes are kept while memory is missing", p.keeping)
	}
	call.Free(call.Allocate(largeBytes))
}
