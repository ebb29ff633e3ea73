package quant

import (
	"encoding/binary"
	"fmt"
	"math"
	"sync"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// Result is what a run gives: ready batches of one schema, and the layers that
// were left out. Release gives the memory back once the batches are no longer
// needed or have been exported.
type Result struct {
	Schema  *arrow.Schema
	Batches []arrow.RecordBatch
	Skipped LayerErrors
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

// arena allocates exact buffers and frees those that are still its own.
type arena struct {
	allocator memory.Allocator
	mutex     sync.Mutex
	buffers   []*memory.Buffer
}

// allocate gives a buffer of exactly size bytes. It panics with an error that
// wraps ErrMemory if there is no memory; allocations catches that.
func (a *arena) allocate(size int) *memory.Buffer {
	defer func() {
		if value := recover(); value != nil {
			panic(userError{ErrMemory, fmt.Sprintf("out of memory: %d bytes for the result: %v", size, value)})
		}
	}()
	buffer := memory.NewResizableBuffer(a.allocator)
	buffer.ResizeNoShrink(size)
	a.mutex.Lock()
	defer a.mutex.Unlock()
	a.buffers = append(a.buffers, buffer)
	return buffer
}

// release frees what allocate gave, but for what arrays hold on to.
func (a *arena) release() {
	for _, buffer := range a.buffers {
		buffer.Release()
	}
	a.buffers = nil
}

// allocations calls f and returns its panic if that is an error of allocate.
func allocations(f func()) (err error) {
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

// outputColumn is a column of a result while it is made.
type outputColumn interface {
	keep(rows []int) // drops all rows but these, which are in order
	build() arrow.Array
}

// variableColumn is a binary or list column whose rows are planned first, then
// written in place by the workers.
type variableColumn struct {
	dataType arrow.DataType
	width    int // bytes of an element
	rows     int
	offsets  *memory.Buffer // in elements; row i is from offset i to i+1
	large    bool           // offsets are of 64 bits
	values   *memory.Buffer
}

// newVariableColumn allocates rows that have so many elements in all. The offsets
// of all rows are to be set.
func newVariableColumn(a *arena, dataType arrow.DataType, width, rows, elements int) *variableColumn {
	c := &variableColumn{dataType: dataType, width: width, rows: rows, large: isLarge(dataType)}
	c.offsets, c.values = a.allocate((rows+1)*c.offsetWidth()), a.allocate(elements*width)
	c.setOffset(rows, elements)
	return c
}

// newPlannedColumn allocates rows of the given lengths, in elements.
func newPlannedColumn(a *arena, dataType arrow.DataType, width, rows int, length func(row int) int) *variableColumn {
	elements := 0
	for row := range rows {
		elements += length(row)
	}
	c := newVariableColumn(a, dataType, width, rows, elements)
	offset := 0
	for row := range rows {
		c.setOffset(row, offset)
		offset += length(row)
	}
	return c
}

func (c *variableColumn) offsetWidth() int {
	if c.large {
		return 8
	}
	return 4
}

func (c *variableColumn) offset(i int) int {
	if c.large {
		return int(binary.LittleEndian.Uint64(c.offsets.Bytes()[8*i:]))
	}
	return int(binary.LittleEndian.Uint32(c.offsets.Bytes()[4*i:]))
}

func (c *variableColumn) setOffset(i, offset int) {
	if c.large {
		binary.LittleEndian.PutUint64(c.offsets.Bytes()[8*i:], uint64(offset))
	} else {
		binary.LittleEndian.PutUint32(c.offsets.Bytes()[4*i:], uint32(offset))
	}
}

// row is the memory of one row.
func (c *variableColumn) row(i int) []byte {
	return c.values.Bytes()[c.offset(i)*c.width : c.offset(i+1)*c.width]
}

func (c *variableColumn) keep(rows []int) {
	values := c.values.Bytes()
	end := 0
	for i, row := range rows { // i <= row: the offsets of later rows are still there
		kept := c.row(row)
		c.setOffset(i, end/c.width)
		end += copy(values[end:], kept)
	}
	c.rows = len(rows)
	c.setOffset(c.rows, end/c.width)
	c.offsets.ResizeNoShrink((c.rows + 1) * c.offsetWidth())
	c.values.ResizeNoShrink(end)
}

func (c *variableColumn) build() arrow.Array {
	list, ok := c.dataType.(arrow.ListLikeType)
	if !ok {
		return newArray(c.dataType, c.rows, []*memory.Buffer{nil, c.offsets, c.values})
	}
	elements := array.NewData(list.Elem(), c.offset(c.rows), []*memory.Buffer{nil, c.values}, nil, 0, 0)
	defer elements.Release()
	return newArray(c.dataType, c.rows, []*memory.Buffer{nil, c.offsets}, elements)
}

func isLarge(dataType arrow.DataType) bool {
	return dataType.ID() == arrow.LARGE_BINARY || dataType.ID() == arrow.LARGE_LIST
}

func newArray(dataType arrow.DataType, rows int, buffers []*memory.Buffer, children ...arrow.ArrayData) arrow.Array {
	data := array.NewData(dataType, rows, buffers, children, 0, 0)
	defer data.Release()
	return array.MakeFromData(data)
}

// textColumn makes a string column of rows known by now.
func textColumn(a *arena, rows int, text func(row int) string) arrow.Array {
	c := newPlannedColumn(a, arrow.BinaryTypes.String, 1, rows, func(row int) int { return len(text(row)) })
	for row := range rows {
		copy(c.row(row), text(row))
	}
	return c.build()
}

// shapeColumn makes a list<int64> column of rows known by now.
func shapeColumn(a *arena, rows int, shape func(row int) []int64) arrow.Array {
	c := newPlannedColumn(a, arrow.ListOf(arrow.PrimitiveTypes.Int64), 8, rows, func(row int) int { return len(shape(row)) })
	for row := range rows {
		putShape(c.row(row), shape(row))
	}
	return c.build()
}

func putShape(out []byte, shape []int64) {
	for i, d := range shape {
		binary.LittleEndian.PutUint64(out[8*i:], uint64(d))
	}
}

// fixedColumn is a column of elements of fixed width.
type fixedColumn struct {
	dataType arrow.DataType
	width    int
	values   *memory.Buffer
}

func newFixedColumn(a *arena, dataType arrow.DataType, rows int) *fixedColumn {
	width := dataType.(arrow.FixedWidthDataType).Bytes()
	return &fixedColumn{dataType, width, a.allocate(rows * width)}
}

// row is the memory of one row.
func (c *fixedColumn) row(i int) []byte { return c.values.Bytes()[i*c.width:][:c.width] }

func (c *fixedColumn) keep(rows []int) {
	for i, row := range rows {
		copy(c.row(i), c.row(row))
	}
	c.values.ResizeNoShrink(len(rows) * c.width)
}

func (c *fixedColumn) build() arrow.Array {
	return newArray(c.dataType, c.values.Len()/c.width, []*memory.Buffer{nil, c.values})
}

func float64Column(a *arena, rows int, value func(row int) float64) *fixedColumn {
	c := newFixedColumn(a, arrow.PrimitiveTypes.Float64, rows)
	for row := range rows {
		binary.LittleEndian.PutUint64(c.row(row), math.Float64bits(value(row)))
	}
	return c
}

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
type rowSizes [4]int

func (s *rowSizes) add(more rowSizes) {
	for i, size := range more {
		s[i] += size
	}
}

// spanStarts are the sums of the sizes of all rows before each span of inSpans, and
// at last those of all rows.
func spanStarts(threads, rows int, sizes func(row int) rowSizes) []rowSizes {
	sums := inSpans(threads, rows, spanRows, func(_, first, end int) (sum rowSizes) {
		for row := first; row < end; row++ {
			sum.add(sizes(row))
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
