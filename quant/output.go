package quant

import (
	"math"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
)

// Result is what a run gives: ready batches of one schema, the layers that were
// left out, and those that have groups without a scale. Release gives the memory back once the batches are no longer
// needed or have been exported.
type Result struct {
	Schema     *arrow.Schema
	Batches    []arrow.RecordBatch
	Skipped    LayerErrors
	Underflows []Underflow
}

// Release drops the result's hold on its batches.
func (r *Result) Release() {
	for _, batch := range r.Batches {
		batch.Release()
	}
	r.Batches = nil
}

// maxOffset is how many bytes or elements one column of a batch may hold
// before its 32-bit offsets run out.
const maxOffset = math.MaxInt32

// newBatch makes the columns and hands them over to a batch. Should making one
// panic, those before it are released.
func newBatch(schema *arrow.Schema, rows, threads int, columns []func() arrow.Array) arrow.RecordBatch {
	arrays := make([]arrow.Array, len(columns))
	defer func() {
		for _, arr := range arrays {
			if arr != nil {
				arr.Release()
			}
		}
	}()
	inSpans(threads, len(columns), max(1, len(columns)*spanRows/max(rows, 1)), func(_, first, end int) struct{} {
		for i := first; i < end; i++ {
			arrays[i] = columns[i]()
		}
		return struct{}{}
	})
	return array.NewRecordBatch(schema, arrays, int64(rows))
}

// rowSizes are a row's sizes in the columns that have 32-bit offsets.
type rowSizes [9]int

func (s *rowSizes) add(more rowSizes) {
	for i, size := range more {
		s[i] += size
	}
}

// spanStarts are the sums of the sizes of all rows before each span of inSpans, and
// at last those of all rows.
func spanStarts(threads, rows int, addSizes func(to *rowSizes, row int)) []rowSizes {
	sums := inSpans(threads, rows, spanRows, func(_, first, end int) (sum rowSizes) {
		for row := first; row < end; row++ {
			addSizes(&sum, row)
		}
		return sum
	})
	starts := make([]rowSizes, 1, len(sums)+1)
	for i, sum := range sums {
		sum.add(starts[i])
		starts = append(starts, sum)
	}
	return starts
}

// splitRows cuts rows 0 .. rows-1 into batches in which no column's sum of
// sizes passes limit, but for single rows that do.
func splitRows(rows, limit int, sizes func(row int) rowSizes) (ends []int) {
	var sums rowSizes
	for row := range rows {
		added := sizes(row)
		full := false
		for i, size := range added {
			full = full || size > 0 && sums[i] > 0 && size > limit-sums[i]
		}
		if full {
			ends = append(ends, row)
			sums = rowSizes{}
		}
		sums.add(added)
	}
	return append(ends, rows)
}
