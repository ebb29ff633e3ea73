package quant

import (
	"encoding/binary"
	"math"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/bitutil"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

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
	// null tells which rows are, and bitmap is memory to say so: nil where none may be.
	null   []bool
	bitmap *memory.Buffer
}

// newVariableColumn allocates rows that have so many elements in all. The offsets
// of all rows are to be set.
func newVariableColumn(m *resultMemory, dataType arrow.DataType, width, rows, elements int) *variableColumn {
	c := &variableColumn{dataType: dataType, width: width, rows: rows, large: isLarge(dataType)}
	c.offsets, c.values = m.buffer((rows+1)*c.offsetWidth()), m.buffer(elements*width)
	c.setOffset(rows, elements)
	return c
}

// newNullableColumn is a newVariableColumn whose rows are null until they are said not to be.
func newNullableColumn(m *resultMemory, dataType arrow.DataType, width, rows, elements int) *variableColumn {
	c := newVariableColumn(m, dataType, width, rows, elements)
	c.null, c.bitmap = make([]bool, rows), m.buffer((rows+7)/8)
	for row := range c.null {
		c.null[row] = true
	}
	return c
}

// newPlannedColumn allocates rows of the given lengths, in elements.
func newPlannedColumn(m *resultMemory, dataType arrow.DataType, width, rows int, length func(row int) int) *variableColumn {
	elements := 0
	for row := range rows {
		elements += length(row)
	}
	c := newVariableColumn(m, dataType, width, rows, elements)
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

// float32s is row for a column of float32.
func (c *variableColumn) float32s(i int) []float32 {
	return arrow.Float32Traits.CastFromBytes(c.row(i))
}

func (c *variableColumn) keep(rows []int) {
	values := c.values.Bytes()
	end := 0
	for i, row := range rows { // i <= row: the offsets of later rows are still there
		kept := c.row(row)
		c.setOffset(i, end/c.width)
		end += copy(values[end:], kept)
		if c.null != nil {
			c.null[i] = c.null[row]
		}
	}
	c.rows = len(rows)
	c.setOffset(c.rows, end/c.width)
	c.offsets.ResizeNoShrink((c.rows + 1) * c.offsetWidth())
	c.values.ResizeNoShrink(end)
}

func (c *variableColumn) build() arrow.Array {
	validity := c.validity()
	list, ok := c.dataType.(arrow.ListLikeType)
	if !ok {
		return newArray(c.dataType, c.rows, []*memory.Buffer{validity, c.offsets, c.values})
	}
	elements := array.NewData(list.Elem(), c.offset(c.rows), []*memory.Buffer{nil, c.values}, nil, 0, 0)
	defer elements.Release()
	return newArray(c.dataType, c.rows, []*memory.Buffer{validity, c.offsets}, elements)
}

// validity makes the bitmap of rows that are not null, or nil where none is null.
func (c *variableColumn) validity() *memory.Buffer {
	if !slices.Contains(c.null[:min(c.rows, len(c.null))], true) {
		return nil
	}
	c.bitmap.ResizeNoShrink((c.rows + 7) / 8)
	bits := c.bitmap.Bytes()
	clear(bits)
	for row := range c.rows {
		if !c.null[row] {
			bitutil.SetBit(bits, row)
		}
	}
	return c.bitmap
}

func isLarge(dataType arrow.DataType) bool {
	return dataType.ID() == arrow.LARGE_BINARY || dataType.ID() == arrow.LARGE_LIST
}

func newArray(dataType arrow.DataType, rows int, buffers []*memory.Buffer, children ...arrow.ArrayData) arrow.Array {
	nulls := 0
	if buffers[0] != nil {
		nulls = array.UnknownNullCount
	}
	data := array.NewData(dataType, rows, buffers, children, nulls, 0)
	defer data.Release()
	return array.MakeFromData(data)
}

// textColumn makes a string column of rows known by now.
func textColumn(m *resultMemory, rows int, text func(row int) string) arrow.Array {
	c := newPlannedColumn(m, arrow.BinaryTypes.String, 1, rows, func(row int) int { return len(text(row)) })
	for row := range rows {
		copy(c.row(row), text(row))
	}
	return c.build()
}

// shapeColumn makes a list<int64> column of rows known by now.
func shapeColumn(m *resultMemory, rows int, shape func(row int) []int64) arrow.Array {
	c := newPlannedColumn(m, arrow.ListOf(arrow.PrimitiveTypes.Int64), 8, rows, func(row int) int { return len(shape(row)) })
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

func newFixedColumn(m *resultMemory, dataType arrow.DataType, rows int) *fixedColumn {
	width := dataType.(arrow.FixedWidthDataType).Bytes()
	return &fixedColumn{dataType, width, m.buffer(rows * width)}
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

func float64Column(m *resultMemory, rows int, value func(row int) float64) *fixedColumn {
	c := newFixedColumn(m, arrow.PrimitiveTypes.Float64, rows)
	for row := range rows {
		binary.LittleEndian.PutUint64(c.row(row), math.Float64bits(value(row)))
	}
	return c
}
