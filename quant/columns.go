package quant

import (
	"encoding/binary"
	"unicode/utf8"
	"unsafe"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/bitutil"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// The readers below check every offset before they use it: buffers come from
// other programs. They give views of the Arrow memory, and copy nothing.

// byteReader gives the bytes of a row of a text or binary column.
type byteReader func(row int) ([]byte, *problem)

// newByteReader reads columns that isText or isRaw accepts.
func newByteReader(column string, arr arrow.Array) byteReader {
	var values byteReader
	switch arr := arr.(type) {
	case *array.String, *array.Binary:
		values = offsetBytes(column, arr.Data(), 4)
	case *array.LargeString, *array.LargeBinary:
		values = offsetBytes(column, arr.Data(), 8)
	case array.ViewLike:
		values = viewBytes(column, arr)
	case *array.Dictionary:
		values = dictionaryBytes(column, arr)
	}
	nulls := validityOf(arr)
	return func(row int) ([]byte, *problem) {
		if nulls.isNull(row) {
			return nil, problemf(KindNull, ": %s is null", column)
		}
		return values(row)
	}
}

// validity tells which elements of an array are null.
type validity struct {
	bitmap []byte // empty: none
	offset int
}

func validityOf(arr arrow.Array) validity {
	return validity{arr.NullBitmapBytes(), arr.Data().Offset()}
}

func (v validity) isNull(i int) bool {
	return len(v.bitmap) > 0 && !bitutil.BitIsSet(v.bitmap, v.offset+i)
}

// firstNull is the first null among elements start .. end, counted from start,
// or -1.
func (v validity) firstNull(start, end int64) int64 {
	length := int(end - start)
	if len(v.bitmap) == 0 || length == 0 || bitutil.CountSetBits(v.bitmap, v.offset+int(start), length) == length {
		return -1
	}
	for i := range length {
		if v.isNull(int(start) + i) {
			return int64(i)
		}
	}
	return -1
}

func offsetBytes(column string, data arrow.ArrayData, width int) byteReader {
	offsets, values := bufferBytes(data.Buffers()[1]), bufferBytes(data.Buffers()[2])
	return func(row int) ([]byte, *problem) {
		start, end := offsetsAt(offsets, width, data.Offset()+row)
		if p := checkSpan(column, start, end, int64(len(values))); p != nil {
			return nil, p
		}
		return values[start:end], nil
	}
}

func viewBytes(column string, arr array.ViewLike) byteReader {
	buffers := arr.Data().Buffers()
	return func(row int) ([]byte, *problem) {
		header := arr.ValueHeader(row)
		if header.Len() < 0 {
			return nil, problemf(KindCorrupt, ": %s has the negative length %d", column, header.Len())
		}
		if header.IsInline() {
			return header.InlineBytes(), nil
		}
		buffer := int64(header.BufferIndex()) + 2
		if buffer < 2 || buffer >= int64(len(buffers)) {
			return nil, problemf(KindCorrupt, ": %s refers to data buffer %d of %d", column, buffer-2, len(buffers)-2)
		}
		values := bufferBytes(buffers[buffer])
		start := int64(header.BufferOffset())
		end := start + int64(header.Len())
		if p := checkSpan(column, start, end, int64(len(values))); p != nil {
			return nil, p
		}
		return values[start:end], nil
	}
}

func dictionaryBytes(column string, arr *array.Dictionary) byteReader {
	dictionary := arr.Dictionary()
	values := newByteReader(column, dictionary)
	indices := newIntegerReader(arr.Indices())
	return func(row int) ([]byte, *problem) {
		index := indices(row)
		if index < 0 || index >= int64(dictionary.Len()) {
			return nil, problemf(KindCorrupt, ": %s has dictionary index %d, the dictionary has %d values", column, index, dictionary.Len())
		}
		return values(int(index))
	}
}

// textReader gives the UTF-8 text of a row, as a view.
type textReader func(row int) (string, *problem)

func newTextReader(column string, arr arrow.Array) textReader {
	read := newByteReader(column, arr)
	return func(row int) (string, *problem) {
		raw, p := read(row)
		if p != nil {
			return "", p
		}
		if !utf8.Valid(raw) {
			return "", problemf(KindCorrupt, ": %s is not valid UTF-8", column)
		}
		return unsafe.String(unsafe.SliceData(raw), len(raw)), nil
	}
}

// integerReader gives the value of a row of an integer column.
type integerReader func(row int) int64

// newIntegerReader reads columns that isInteger accepts. Unsigned 64-bit
// values beyond int64 come out negative, which no caller accepts.
func newIntegerReader(arr arrow.Array) integerReader {
	data := arr.Data()
	values := bufferBytes(data.Buffers()[1])
	width := arr.DataType().(arrow.FixedWidthDataType).Bytes()
	unsigned := arrow.IsUnsignedInteger(arr.DataType().ID())
	return func(row int) int64 {
		value := integerAt(values, width, data.Offset()+row)
		if unsigned && width < 8 {
			value &= 1<<(8*width) - 1
		}
		return value
	}
}

// listReader gives the elements of a row of a list column: a range of child.
type listReader struct {
	column       string
	nulls        validity
	span         func(row int) (start, end int64)
	size         int64 // of each list, or -1 where they differ
	count        int64 // of elements
	nullElements validity

	inner    *listReader // of elements that are lists themselves, which have no more than this
	element  arrow.DataType
	width    int    // bytes of an element
	elements []byte // all of child
}

// newListReader reads columns that isListOf or isNestedList accepts.
func newListReader(column string, arr arrow.Array) *listReader {
	data := arr.Data()
	first := data.Offset()
	child := arr.(array.ListLike).ListValues()
	r := &listReader{
		column:       column,
		nulls:        validityOf(arr),
		size:         -1,
		count:        int64(child.Len()),
		nullElements: validityOf(child),
	}
	if _, ok := child.DataType().(arrow.ListLikeType); ok {
		r.inner = newListReader(column, child)
	} else {
		r.element = child.DataType()
		r.width = child.DataType().(arrow.FixedWidthDataType).Bytes()
		if child.Len() > 0 {
			r.elements = bufferBytes(child.Data().Buffers()[1])[child.Data().Offset()*r.width:]
		}
	}
	offsets := func(width int) func(row int) (int64, int64) {
		buffer := bufferBytes(data.Buffers()[1])
		return func(row int) (int64, int64) {
			return offsetsAt(buffer, width, first+row)
		}
	}
	views := func(width int) func(row int) (int64, int64) {
		starts, sizes := bufferBytes(data.Buffers()[1]), bufferBytes(data.Buffers()[2])
		return func(row int) (int64, int64) {
			start, size := integerAt(starts, width, first+row), integerAt(sizes, width, first+row)
			return start, start + size
		}
	}
	switch dt := arr.DataType().(type) {
	case *arrow.ListType:
		r.span = offsets(4)
	case *arrow.LargeListType:
		r.span = offsets(8)
	case *arrow.ListViewType:
		r.span = views(4)
	case *arrow.LargeListViewType:
		r.span = views(8)
	case *arrow.FixedSizeListType:
		size := int64(dt.Len())
		past := r.count/max(size, 1) + 1 // no list from here on; the product of a later one may overflow
		r.size = size
		r.span = func(row int) (int64, int64) {
			start := min(int64(first+row), past) * size
			return start, start + size
		}
	}
	return r
}

func (r *listReader) isNull(row int) bool { return r.nulls.isNull(row) }

// values gives the bytes of a row's elements.
func (r *listReader) values(row int) ([]byte, *problem) {
	if r.isNull(row) {
		return nil, problemf(KindNull, ": %s is null", r.column)
	}
	start, end := r.span(row)
	if p := checkSpan(r.column, start, end, r.count); p != nil {
		return nil, p
	}
	return r.between(start, end)
}

// between gives the bytes of elements start .. end-1, which are there.
func (r *listReader) between(start, end int64) ([]byte, *problem) {
	if index := r.nullElements.firstNull(start, end); index >= 0 {
		return nil, problemf(KindNull, " contains null in %s at index %d. Fill such values first", r.column, index).at(index)
	}
	return r.elements[start*int64(r.width) : end*int64(r.width)], nil
}

// integers appends a row's elements, which are integers of any type.
func (r *listReader) integers(out []int64, row int) ([]int64, *problem) {
	raw, p := r.values(row)
	if p != nil {
		return out, p
	}
	unsigned := arrow.IsUnsignedInteger(r.element.ID())
	for i := range len(raw) / r.width {
		value := integerAt(raw, r.width, i)
		if unsigned && r.width < 8 {
			value &= 1<<(8*r.width) - 1
		}
		if unsigned && value < 0 {
			return out, problemf(KindShapeMismatch, ": Shape mismatch: %s has %d, which is beyond 2^63-1", r.column, uint64(value))
		}
		out = append(out, value)
	}
	return out, nil
}

func checkSpan(column string, start, end, length int64) *problem {
	if start < 0 || end < start || end > length {
		return problemf(KindCorrupt, ": %s has offsets %d to %d, its values are 0 to %d", column, start, end, length)
	}
	return nil
}

func bufferBytes(b *memory.Buffer) []byte {
	if b == nil {
		return nil
	}
	return b.Bytes()
}

// offsetsAt reads offset i and the next one, which are of 4 or 8 bytes.
func offsetsAt(buffer []byte, width, i int) (start, end int64) {
	b := buffer[i*width:][:2*width]
	if width == 4 {
		both := binary.LittleEndian.Uint64(b)
		return int64(int32(both)), int64(both) >> 32
	}
	return int64(binary.LittleEndian.Uint64(b)), int64(binary.LittleEndian.Uint64(b[8:]))
}

// integerAt reads a signed little-endian integer of width bytes; buffers need
// no alignment.
func integerAt(buffer []byte, width, i int) int64 {
	b := buffer[i*width:]
	switch width {
	case 1:
		return int64(int8(b[0]))
	case 2:
		return int64(int16(binary.LittleEndian.Uint16(b)))
	case 4:
		return int64(int32(binary.LittleEndian.Uint32(b)))
	default:
		return int64(binary.LittleEndian.Uint64(b))
	}
}
