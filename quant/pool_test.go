package quant

import (
	"context"
	"errors"
	"math"
	"sync/atomic"
	"testing"
)

// tasksOf makes n tasks of some units.
func tasksOf(n int) (all tasks) {
	for i := range n {
		all = append(all, task{first: all.count(), count: 1 + i%3})
	}
	return all
}

// TestEveryUnitIsDoneOnce has numbers of tasks around all multiples of what a
// worker takes at a time.
func TestEveryUnitIsDoneOnce(t *testing.T) {
	for n := range 600 {
		all := tasksOf(n)
		for _, threads := range []int{1, 2, 3, 40, math.MaxInt} {
			done := make([]atomic.Int32, all.count())
			var workers atomic.Int32
			err := all.run(context.Background(), threads, func() worker {
				workers.Add(1)
				return func(i int, _ *unit) { done[i].Add(1) }
			})
			if err != nil || int(workers.Load()) > min(n, threads) {
				t.Fatalf("%d tasks, %d threads: %d workers, error %v", n, threads, workers.Load(), err)
			}
			for i := range done {
				if times := done[i].Load(); times != 1 {
					t.Fatalf("%d tasks, %d threads: unit %d is done %d times", n, threads, i, times)
				}
			}
		}
	}
}

// TestWorkStops cancels, or panics, in the midst of the tasks that a worker takes at
// a time.
func TestWorkStops(t *testing.T) {
	const n, at, threads = 2000, 37, 3
	all := tasksOf(n)
	for _, panics := range []bool{false, true} {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		var stopped atomic.Bool
		var later atomic.Int32 // tasks that were begun after that
		err := all.run(ctx, threads, func() worker {
			return func(i int, _ *unit) {
				if i == all[at].first {
					if panics {
						panic("stop")
					}
					cancel()
					stopped.Store(true)
				} else if stopped.Load() {
					later.Add(1)
				}
			}
		})
		var panicked *PanicError
		if panics && !errors.As(err, &panicked) || !panics && !errors.Is(err, context.Canceled) {
			t.Errorf("panics %v: error %v", panics, err)
		}
		if count := later.Load(); !panics && count > 3*threads {
			t.Errorf("%d units after the run was cancelled", count)
		}
	}
}
