package quant

import (
	"strings"
	"sync"
)

// Underflow says that scale_dtype, or what an encoding stores scales in, rounds those of
// some groups of a layer to 0, so that all weights of such a group decode to one value: 0 if
// that is within their range.
type Underflow struct {
	Name   string `json:"layer_name"`
	Groups int    `json:"groups"`
}

// underflows are the numbers of such groups, by layer. They are rare, so that workers
// may share them.
type underflows struct {
	mutex  sync.Mutex
	groups map[int]int
}

func (u *underflows) add(layer, groups int) {
	if groups == 0 {
		return
	}
	u.mutex.Lock()
	defer u.mutex.Unlock()
	if u.groups == nil {
		u.groups = map[int]int{}
	}
	u.groups[layer] += groups
}

// underflows are those of the layers that did not fail, in output order.
func (q *quantization) underflows() (found []Underflow) {
	if len(q.underflowed.groups) == 0 {
		return nil
	}
	for i := range q.layers {
		_, failed := q.faults.first[i]
		if groups := q.underflowed.groups[i]; groups > 0 && !failed {
			found = append(found, Underflow{strings.Clone(q.layers[i].name), groups})
		}
	}
	return found
}
