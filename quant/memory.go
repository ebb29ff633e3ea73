package quant

import (
	"fmt"
	"sync"

	"github.com/apache/arrow-go/v18/arrow/memory"
)

// resultMemory is the buffers of a result, of exact sizes. It frees those that are
// still its own.
type resultMemory struct {
	allocator memory.Allocator
	mutex     sync.Mutex
	buffers   []*memory.Buffer
}

// buffer gives one of exactly size bytes. It panics with an error that
// wraps ErrMemory if there is no memory; withMemory catches that.
func (m *resultMemory) buffer(size int) *memory.Buffer {
	defer func() {
		if value := recover(); value != nil {
			panic(userError{ErrMemory, fmt.Sprintf("out of memory: %d bytes for the result: %v", size, value)})
		}
	}()
	buffer := memory.NewResizableBuffer(m.allocator)
	buffer.ResizeNoShrink(size)
	m.mutex.Lock()
	defer m.mutex.Unlock()
	m.buffers = append(m.buffers, buffer)
	return buffer
}

// release frees what buffer gave, but for what arrays hold on to.
func (m *resultMemory) release() {
	for _, buffer := range m.buffers {
		buffer.Release()
	}
	m.buffers = nil
}

// withMemory calls f and returns its panic if that is an error of buffer.
func withMemory(f func()) (err error) {
	defer func() {
		if value := recover(); value != nil {
			failure, ok := value.(userError)
			if !ok {
				panic(value)
			}
			err = failure
		}
	}()
	f()
	return nil
}
