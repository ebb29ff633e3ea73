package quant

import "sync"

// Progress is told of weights as they are done, by one goroutine at a time: bytes
// done and in all. layer names one that has finished, a view that ends with the
// run; it is nil where a part of a layer has. done never decreases, and is total
// in the last call.
type Progress func(layer *string, done, total int64)

// progressCounter notices when the last unit of a layer is done.
type progressCounter struct {
	report Progress // nil: nobody listens
	mutex  sync.Mutex
	left   []int32 // units of each layer
	done   int64
	total  int64
}

// newProgressCounter reports layers that are empty.
func newProgressCounter(report Progress, layers []layer, all tasks) *progressCounter {
	c := &progressCounter{report: report}
	if report == nil {
		return c
	}
	c.left = make([]int32, len(layers))
	for _, t := range all {
		t.units(func(_ int, u *unit) { c.left[u.layer]++ })
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
		c.mutex.Lock()
		defer c.mutex.Unlock()
		c.report(&name, c.done, c.total)
	}
}

// unitDone reports a unit, with the name of the layer if it was the last one of that.
func (c *progressCounter) unitDone(u *unit, l *layer) {
	if c.report == nil {
		return
	}
	part := u.grouped(l.grouped)
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.done += int64(part.elements() * l.element.Size())
	var finished *string
	if c.left[u.layer]--; c.left[u.layer] == 0 {
		finished = &l.name
	}
	c.report(finished, c.done, c.total)
}
