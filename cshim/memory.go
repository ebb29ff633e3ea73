package main

// #include "memory.h"
import "C"

import (
	"fmt"
	"slices"
	"sync"
	"time"
	"unsafe"

	"github.com/pyarrowquant/pyarrowquant/quant"
)

const (
	largeBytes = 1 << 20          // from here on, buffers are large blocks
	idleTime   = 10 * time.Second // after which an unused pool is emptied
)

// allocator gives the memory of all results and counts it.
var allocator = newPool()

// pool is C memory, which calls take through a callAllocator. Pages that the
// system has to clear cost as much as quantizing into them, so large blocks that
// come back are kept for the next call: no more bytes than the largest recent call
// took, not longer than idleTime without a call, and not against the system, which
// may take their pages when memory is short. Many calls use it at once, and each of
// them from many goroutines.
type pool struct {
	mutex   sync.Mutex
	alive   int64                  // bytes allocated and not freed
	sizes   map[unsafe.Pointer]int // of large blocks that are alive
	kept    []block                // the latest last
	keeping int                    // bytes in kept
	bound   int                    // on keeping: what the largest recent call took
	recent  time.Time              // until then
	timer   *time.Timer
}

type block struct {
	address unsafe.Pointer
	size    int
}

func newPool() *pool {
	p := &pool{sizes: map[unsafe.Pointer]int{}}
	p.timer = time.AfterFunc(idleTime, func() { _ = quant.Recovered(p.empty) })
	p.timer.Stop()
	return p
}

// allocate panics if there is no memory. The content is undefined. The mutex is
// held.
func (p *pool) allocate(size int) []byte {
	var address unsafe.Pointer
	if size < largeBytes {
		address = C.paq_small_new(C.size_t(size))
	} else {
		address = p.large(size)
	}
	if address == nil {
		panic(fmt.Sprintf("the system gives no %d bytes", size))
	}
	p.alive += int64(size)
	return unsafe.Slice((*byte)(address), size)
}

func (p *pool) large(size int) unsafe.Pointer {
	size = wholePages(size)
	b := p.take(size)
	if b.address == nil {
		b = block{C.paq_large_new(C.size_t(size)), size}
	}
	if b.address == nil { // what is kept may be what is missing
		p.drop(0)
		b = block{C.paq_large_new(C.size_t(size)), size}
	}
	if b.address != nil {
		p.sizes[b.address] = b.size
	}
	return b.address
}

func wholePages(size int) int { return (size + C.PAQ_PAGE - 1) / C.PAQ_PAGE * C.PAQ_PAGE }

// take finds a kept block that is large enough, but not much too large.
func (p *pool) take(size int) (b block) {
	for i, k := range slices.Backward(p.kept) {
		if k.size >= size && k.size <= size+size/4 {
			p.kept = slices.Delete(p.kept, i, i+1)
			p.keeping -= k.size
			return k
		}
	}
	return b
}

// Free takes back what Allocate gave.
func (p *pool) Free(b []byte) {
	if len(b) == 0 {
		return
	}
	address := unsafe.Pointer(unsafe.SliceData(b))
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.alive -= int64(len(b))
	if len(b) < largeBytes {
		C.paq_small_free(address)
		return
	}
	size := p.sizes[address]
	delete(p.sizes, address)
	C.paq_large_idle(address, C.size_t(size))
	p.kept = append(p.kept, block{address, size})
	p.keeping += size
	p.drop(p.bound)
	p.timer.Reset(idleTime)
}

// drop gives the oldest kept blocks back to the system until no more than
// bound bytes are kept.
func (p *pool) drop(bound int) {
	for p.keeping > bound {
		oldest := p.kept[0]
		p.kept = slices.Delete(p.kept, 0, 1)
		p.keeping -= oldest.size
		C.paq_large_free(oldest.address, C.size_t(oldest.size))
	}
}

// empty gives all kept blocks back.
func (p *pool) empty() error {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.drop(0)
	p.bound = 0
	return nil
}

// AllocatedBytes is what results hold at the moment.
func (p *pool) AllocatedBytes() int64 {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	return p.alive
}

// callAllocator is a call's memory.Allocator: a view of a pool that bounds what the
// pool keeps by the call's large blocks.
type callAllocator struct {
	*pool
	total int // bytes of large blocks so far; the pool's mutex guards it
}

// Allocate panics if there is no memory. The content is undefined.
func (c *callAllocator) Allocate(size int) []byte {
	if size == 0 {
		return nil
	}
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if size >= largeBytes {
		c.total += wholePages(size)
		c.atLeast(c.total)
	}
	return c.allocate(size)
}

// Reallocate is Allocate, a copy and Free.
func (c *callAllocator) Reallocate(size int, b []byte) []byte {
	moved := c.Allocate(size)
	copy(moved, b)
	c.Free(b)
	return moved
}

// atLeast has the pool keep so many bytes, unless a recent call took more. The mutex
// is held.
func (p *pool) atLeast(bound int) {
	if now := time.Now(); bound >= p.bound || now.After(p.recent) {
		p.bound, p.recent = bound, now.Add(idleTime)
	}
}
