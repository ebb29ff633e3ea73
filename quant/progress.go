package quant

import (
	"sync"
	"sync/atomic"
)

// Progress is called once a layer as layers finish, by one goroutine at a
// time: bytes of weights done and in all. done never decreases, and is total
// in the last call. name is a view that ends with the run.
type Progress func(name string, done, total int64)

// progressCounter notices when the last unit of a layer is done.
type progressCounter struct {
	report Progress // nil: nobody listens
	left   []atomic.Int32
	mutex  sync.Mutex
	done   int64
	total  int64
}

// newProgressCounter reports layers that are empty.
func newProgressCounter(report Progress, layers []layer, all tasks) *progressCounter {
	c := &progressCounter{report: report}
	if report == nil {
		return c
	}
	c.left = make([]atomic.Int32, len(layers))
	for _, t := range all {
		t.units(func(_ int, u *unit) { c.left[u.layer].Add(1) })
	}
	for i := range layers {
		c.total += int64(len(layers[i].weights))
	}
	for i := range layers {
		if layers[i].elements() == 0 {
			c.skip(layers[i].name)
		}
	}
	return c
}

// skip reports a layer that has no work: it is empty, or failed when read.
func (c *progressCounter) skip(name string) {
	if c.report != nil {
		c.finish(name, 0)
	}
}

// unitDone reports the layer if this was its last unit.
func (c *progressCounter) unitDone(u *unit, l *layer) {
	if c.report != nil && c.left[u.layer].Add(-1) == 0 {
		c.finish(l.name, int64(len(l.weights)))
	}
}

func (c *progressCounter) finish(name string, bytes int64) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.done += bytes
	c.report(name, c.done, c.total)
}
