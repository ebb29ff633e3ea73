package quant

import (
	"context"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"
)

// rowReader reads a row of a batch, which is inputRow of the whole input, into a
// zero T.
type rowReader[T any] func(into *T, row int, inputRow int64) *LayerError

// readRows reads every row of every batch, by newReader's readers of so many rows
// each, on up to threads goroutines. Rows that cannot be read come back as errors,
// the others in input order. The error is that of the context.
func readRows[T any](ctx context.Context, batches []arrow.RecordBatch, firstRow int64, threads int,
	newReader func(batch arrow.RecordBatch, rows int) rowReader[T]) ([]T, LayerErrors, error) {
	rows := make([]T, countRows(batches))
	var failed LayerErrors
	offset := 0
	for _, batch := range batches {
		into := rows[offset:]
		spans := inSpans(threads, int(batch.NumRows()), spanRows, func(_, first, end int) (failed LayerErrors) {
			read := newReader(batch, end-first)
			for row := first; row < end && ctx.Err() == nil; row++ {
				if err := read(&into[row], row, firstRow+int64(offset+row)); err != nil {
					failed = append(failed, err)
				}
			}
			return failed
		})
		failed = append(failed, slices.Concat(spans...)...)
		offset += int(batch.NumRows())
	}
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	if len(failed) == 0 {
		return rows, nil, nil
	}
	kept, bad := rows[:0], failed
	for i, r := range rows {
		if len(bad) > 0 && bad[0].Row == firstRow+int64(i) {
			bad = bad[1:]
		} else {
			kept = append(kept, r)
		}
	}
	return kept, failed, nil
}

func countRows(batches []arrow.RecordBatch) (rows int) {
	for _, batch := range batches {
		rows += int(batch.NumRows())
	}
	return rows
}
