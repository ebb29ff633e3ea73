package quant

import (
	"context"
	"runtime/debug"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/pyarrowquant/pyarrowquant/quant/internal/kernel"
)

// runUnits calls work with the position of every unit, on up to threads goroutines. The only
// thing that workers write in common is the counter of the next task. It stops
// early if the context is cancelled or if a worker panics.
func runUnits(ctx context.Context, threads int, units []unit, work func(i int)) error {
	ends := tasks(units)
	var next atomic.Int64
	group, ctx := errgroup.WithContext(ctx)
	worker := func() error {
		defer kernel.StandardFloat()()
		for ctx.Err() == nil {
			task := int(next.Add(1)) - 1
			if task >= len(ends) {
				return nil
			}
			start := 0
			if task > 0 {
				start = ends[task-1]
			}
			for i := start; i < ends[task]; i++ {
				work(i)
			}
		}
		return ctx.Err()
	}
	for range min(threads, len(ends)) {
		group.Go(func() error { return Recovered(worker) })
	}
	return group.Wait()
}

// Recovered calls f and turns a panic in it into a PanicError.
func Recovered(f func() error) (err error) {
	defer func() {
		if value := recover(); value != nil {
			err = &PanicError{Value: value, Stack: debug.Stack()}
		}
	}()
	return f()
}
