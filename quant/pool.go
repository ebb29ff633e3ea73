package quant

import (
	"context"
	"runtime/debug"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/pyarrowquant/pyarrowquant/quant/internal/kernel"
)

// worker does a unit, which it does not keep.
type worker func(i int, u *unit)

// run does every unit, given its number too, as runTasks does tasks.
func (t tasks) run(ctx context.Context, threads int, newWorker func() worker) error {
	return t.runTasks(ctx, threads, func() func(*task) {
		do := newWorker()
		return func(t *task) { t.units(do) }
	})
}

// runTasks does every task on up to threads goroutines, of which the caller is one if there is work for one only. Each of them makes itself a
// worker, which may keep memory of its own. The only thing that workers write in
// common is the counter of the next task. It stops early if the context is cancelled
// or if a worker panics.
func (t tasks) runTasks(ctx context.Context, threads int, newWorker func() func(*task)) error {
	if len(t) == 0 {
		return nil
	}
	var next atomic.Int64
	some := t.atATime(threads)
	work := func(ctx context.Context) error {
		defer kernel.StandardFloat()()
		do := newWorker()
		for ctx.Err() == nil {
			end := int(next.Add(int64(some)))
			if end-some >= len(t) {
				return nil
			}
			for i := end - some; i < min(end, len(t)) && ctx.Err() == nil; i++ {
				do(&t[i])
			}
		}
		return ctx.Err()
	}
	workers := min(threads, (len(t)+some-1)/some)
	if workers == 1 {
		return Recovered(func() error { return work(ctx) })
	}
	group, ctx := errgroup.WithContext(ctx)
	for range workers {
		group.Go(func() error { return Recovered(func() error { return work(ctx) }) })
	}
	return group.Wait()
}

// atATime is how many consecutive tasks a worker takes: some MiB, of which it
// prefetches the next one while it does one, but not so many that others have
// nothing left to do.
func (t tasks) atATime(threads int) int { return max(1, min(16, len(t)/16/threads)) }

// spanRows is how many rows are worth a goroutine.
const spanRows = 2048

// inSpans calls work for consecutive spans of 0 .. n-1 of at least so many, on up
// to threads goroutines, and gives the results in order. The spans follow from
// threads, n and least. A panic in one of them is one of the caller.
func inSpans[T any](threads, n, least int, work func(span, first, end int) T) []T {
	count := max(1, min(threads, n/least))
	results := make([]T, count)
	if count == 1 {
		results[0] = work(0, 0, n)
		return results
	}
	var group errgroup.Group
	for i := range count {
		group.Go(func() error {
			return Recovered(func() error {
				defer kernel.StandardFloat()()
				results[i] = work(i, n*i/count, n*(i+1)/count)
				return nil
			})
		})
	}
	if err := group.Wait(); err != nil {
		panic(err) // of a defect with its stack
	}
	return results
}

// Recovered calls f and turns a panic in it into a PanicError. Memory that has no
// longer what it had, as that of a mapped file that was cut short, is an error that
// wraps ErrUnreadable and not the end of the process.
func Recovered(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		switch value := recover().(type) {
		case nil:
		case *PanicError:
			err = value
		case userError:
			err = value
		case interface{ Addr() uintptr }:
			err = unreadableError(value.Addr())
		default:
			err = &PanicError{Value: value, Stack: debug.Stack()}
		}
	}()
	return f()
}
