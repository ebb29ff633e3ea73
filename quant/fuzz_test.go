package quant

import (
	"context"
	"encoding/binary"
	"math"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// material hands out parts of fuzzed bytes; past the end all is zero.
type material struct{ rest []byte }

func (m *material) bytes(n int) []byte {
	out := make([]byte, n)
	copied := copy(out, m.rest)
	m.rest = m.rest[copied:]
	return out
}

func (m *material) below(n int) int { return int(m.bytes(1)[0]) % n }

// small is mostly a small number, seldom any 64-bit one.
func (m *material) small() int64 {
	if m.below(8) == 0 {
		return int64(binary.LittleEndian.Uint64(m.bytes(8)))
	}
	return int64(int8(m.bytes(1)[0])) / 4
}

func (m *material) offsets(n, width int) []byte {
	out := make([]byte, 0, n*width)
	for range n {
		if width == 4 {
			out = binary.LittleEndian.AppendUint32(out, uint32(m.small()))
		} else {
			out = binary.LittleEndian.AppendUint64(out, uint64(m.small()))
		}
	}
	return out
}

// bitmap is absent half of the time.
func (m *material) bitmap(length int) []byte {
	if m.below(2) == 0 {
		return nil
	}
	return m.bytes((length + 7) / 8)
}

func (m *material) array(dataType arrow.DataType, length int, buffers [][]byte, children ...arrow.ArrayData) arrow.Array {
	nulls := array.UnknownNullCount
	if buffers[0] == nil {
		nulls = 0
	}
	wrapped := make([]*memory.Buffer, len(buffers))
	for i, b := range buffers {
		if b != nil {
			wrapped[i] = memory.NewBufferBytes(b)
		}
	}
	return array.MakeFromData(array.NewData(dataType, length, wrapped, children, nulls, 0))
}

func (m *material) fixed(dataType arrow.FixedWidthDataType, length int) arrow.Array {
	return m.array(dataType, length, [][]byte{m.bitmap(length), m.bytes(length * dataType.Bytes())})
}

func (m *material) list(element arrow.FixedWidthDataType, length int) arrow.Array {
	child := m.fixed(element, m.below(40)).Data()
	bitmap := m.bitmap(length)
	switch m.below(4) {
	case 0:
		return m.array(arrow.LargeListOf(element), length, [][]byte{bitmap, m.offsets(length+1, 8)}, child)
	case 1:
		return m.array(arrow.ListViewOf(element), length, [][]byte{bitmap, m.offsets(length, 4), m.offsets(length, 4)}, child)
	case 2:
		return m.array(arrow.FixedSizeListOf(int32(m.below(20)+1), element), length, [][]byte{bitmap}, child)
	default:
		return m.array(arrow.ListOf(element), length, [][]byte{bitmap, m.offsets(length+1, 4)}, child)
	}
}

func (m *material) binary(dataType, large, view arrow.DataType, length int) arrow.Array {
	bitmap, values := m.bitmap(length), m.bytes(m.below(60))
	switch m.below(3) {
	case 0:
		offsets := append(m.offsets(length, 8), little(int64(len(values)))...)
		return m.array(large, length, [][]byte{bitmap, offsets, values})
	case 1:
		return m.array(view, length, [][]byte{bitmap, m.bytes(16 * length), values})
	default:
		offsets := append(m.offsets(length, 4), little(int32(len(values)))...)
		return m.array(dataType, length, [][]byte{bitmap, offsets, values})
	}
}

func (m *material) names(length int) arrow.Array {
	if m.below(4) > 0 {
		return m.binary(arrow.BinaryTypes.String, arrow.BinaryTypes.LargeString, arrow.BinaryTypes.StringView, length)
	}
	dictionaryType := &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int8, ValueType: arrow.BinaryTypes.String}
	indices := m.fixed(arrow.PrimitiveTypes.Int8.(arrow.FixedWidthDataType), length)
	return array.NewDictionaryArray(dictionaryType, indices, texts("a", "b"))
}

func (m *material) raw(length int) arrow.Array {
	return m.binary(arrow.BinaryTypes.Binary, arrow.BinaryTypes.LargeBinary, arrow.BinaryTypes.BinaryView, length)
}

func fixedWidth(dataType arrow.DataType) arrow.FixedWidthDataType {
	return dataType.(arrow.FixedWidthDataType)
}

// FuzzQuantize reads arrays whose offsets, sizes, indices and values are
// arbitrary: there must be a result or an error, and nothing may be left.
func FuzzQuantize(f *testing.F) {
	f.Add([]byte{})
	for seed := range 40 {
		f.Add(pattern(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		m := &material{raw}
		length := m.below(4)
		names, columns := m.weights(length)
		if m.below(2) == 0 {
			names = append(names, "importance")
			columns = append(columns, m.list(fixedWidth(arrow.PrimitiveTypes.Float32), length))
		}
		o := defaults
		o.BitWidth, o.Method = bitWidths[m.below(6)], Method(m.below(len(methodNames)))
		o.ZeroPoint = ZeroPoint(m.below(3))
		m.encode(&o)
		o.MeasureOnly = m.below(4) == 0
		o.ContinueOnError, o.Metrics = m.below(2) == 0, m.below(2) == 0
		schema, batches := batchOf(names, columns...)
		result, err := Quantize(context.Background(), schema, batches, o, checked(t), nil)
		if err != nil {
			return
		}
		defer result.Release()
		if rows := result.Batches[0].NumRows(); rows+int64(len(result.Skipped)) != int64(length) {
			t.Fatalf("%d rows and %d errors of %d layers", rows, len(result.Skipped), length)
		}
	})
}

// layers are the columns of a valid table, but for a NaN now and then.
func (m *material) layers(length int) (names []string, columns []arrow.Array) {
	values, offsets := []float32{}, []int32{0}
	for range length {
		for range m.below(20) {
			values = append(values, float32(m.small()))
		}
		offsets = append(offsets, int32(len(values)))
	}
	if len(values) > 0 && m.below(8) == 0 {
		values[m.below(len(values))] = float32(math.NaN())
	}
	layerNames := texts([]string{"a", "b", "c"}[:length]...)
	return []string{"layer_name", "weights"}, []arrow.Array{layerNames, lists(floats(values...), offsets...)}
}

// weights are the columns of a table of weights.
func (m *material) weights(length int) (names []string, columns []arrow.Array) {
	names = []string{"layer_name", "weights", "shape"}
	columns = []arrow.Array{m.names(length)}
	switch m.below(4) {
	case 0:
		names = append(names, "dtype")
		columns = append(columns, m.raw(length), m.list(fixedWidth(arrow.PrimitiveTypes.Int32), length))
		columns = append(columns, m.dtypes(length))
	case 1:
		columns = append(columns, m.list(fixedWidth(arrow.FixedWidthTypes.Float16), length), m.list(fixedWidth(arrow.PrimitiveTypes.Int64), length))
	case 2:
		columns = append(columns, m.list(fixedWidth(arrow.PrimitiveTypes.Float64), length), m.list(fixedWidth(arrow.PrimitiveTypes.Int64), length))
	default:
		columns = append(columns, m.list(fixedWidth(arrow.PrimitiveTypes.Float32), length), m.list(fixedWidth(arrow.PrimitiveTypes.Int64), length))
	}
	return names, columns
}

// quantized are the columns of a table that no quantization gave.
func (m *material) quantized(length int) (names []string, columns []arrow.Array) {
	names = []string{"layer_name", "quantized_data", "scales", "zero_points", "shape", "bit_width", "group_size"}
	columns = []arrow.Array{
		m.names(length), m.raw(length),
		m.list(fixedWidth(arrow.PrimitiveTypes.Float32), length), m.list(fixedWidth(arrow.PrimitiveTypes.Float32), length),
		m.list(fixedWidth(arrow.PrimitiveTypes.Int64), length),
		m.fixed(fixedWidth(arrow.PrimitiveTypes.Uint8), length), m.groupSizes(length),
	}
	if m.below(2) == 0 {
		return names, columns
	}
	encodings := make([]string, length)
	for i := range encodings {
		encodings[i] = append(encodingNames, "q9_k")[m.below(len(encodingNames)+1)]
	}
	columns = append(columns, texts(encodings...))
	for range encodedNames[1:] {
		columns = append(columns, m.list(fixedWidth(arrow.PrimitiveTypes.Float32), length))
	}
	return append(names, encodedNames...), columns
}

// encode chooses an encoding half of the time.
func (m *material) encode(o *Options) {
	if m.below(2) == 0 {
		return
	}
	o.Encoding = Encoding(m.below(len(encodingNames)))
	if d := o.Encoding.describe(); d != nil {
		o.BitWidth, o.GroupSize = d.BitWidth, GroupSize(d.GroupSize)
		if d.GroupSize == 0 {
			o.GroupSize = WholeRow - GroupSize(m.below(3)) // or one of the other constants
		}
	}
}

func (m *material) dtypes(length int) arrow.Array {
	names := make([]string, length)
	for i := range names {
		names[i] = []string{"F32", "F16", "BF16", "I8"}[m.below(4)]
	}
	return texts(names...)
}

// FuzzDequantize decodes tables that no quantization gave.
func FuzzDequantize(f *testing.F) {
	f.Add([]byte{})
	for seed := range 40 {
		f.Add(pattern(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		m := &material{raw}
		length := m.below(4)
		names, columns := m.quantized(length)
		schema, batches := batchOf(names, columns...)
		o := DequantizeOptions{Dtype: WeightDtype(m.below(2)), Threads: 2}
		result, err := Dequantize(context.Background(), schema, batches, o, checked(t))
		if err == nil {
			result.Release()
		}
	})
}

// FuzzCompare compares tables of arbitrary content: there must be an error, or
// errors of every layer that are numbers.
func FuzzCompare(f *testing.F) {
	f.Add([]byte{})
	for seed := range 40 {
		f.Add(pattern(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		m := &material{raw}
		rows := m.below(4)
		names, columns := m.layers(rows)
		if m.below(4) == 3 {
			names, columns = m.weights(rows)
		}
		layerNames := columns[0]
		var original, result Table
		original.Schema, original.Batches = batchOf(names, columns...)
		switch m.below(4) {
		case 1:
			names, columns = m.weights(rows)
		case 2:
			names, columns = m.quantized(rows)
		case 3:
			names, columns = m.layers(rows)
		default: // what was quantized, with one column of other content
			names, columns = m.quantized(rows)
			o := defaults
			o.Sort = false
			m.encode(&o)
			if o.encoded() {
				names = append(names[:7], encodedNames...)
				columns = append(columns[:7], make([]arrow.Array, len(encodedNames))...)
			}
			quantized, err := Quantize(context.Background(), original.Schema, original.Batches, o, memory.DefaultAllocator, nil)
			if err != nil {
				return
			}
			other := m.below(2 * len(columns))
			for i, column := range quantized.Batches[0].Columns() {
				if i != other || columns[i] == nil {
					columns[i] = column
				}
			}
		}
		if m.below(4) < 3 { // else hardly anything has its original
			columns[0] = layerNames
		}
		result.Schema, result.Batches = batchOf(names, columns...)
		compared, err := Compare(context.Background(), original, result, CompareOptions{Threads: 2}, checked(t))
		if err != nil {
			return
		}
		defer compared.Release()
		if got, want := compared.Batches[0].NumRows(), result.Batches[0].NumRows(); got != want {
			t.Fatalf("%d rows of %d layers", got, want)
		}
		for i := 2; i < int(compared.Batches[0].NumCols()); i++ {
			for _, x := range compared.Batches[0].Column(i).(*array.Float64).Float64Values() {
				if math.IsNaN(x) {
					t.Fatalf("%v", compared.Batches[0])
				}
			}
		}
	})
}

func (m *material) groupSizes(length int) arrow.Array {
	values := make([]int32, length)
	for i := range values {
		values[i] = []int32{-1, 8, 128, int32(m.small())}[m.below(4)]
	}
	return rawArray(arrow.PrimitiveTypes.Int32, length, [][]byte{nil, little(values...)})
}

// pattern is some bytes to begin with.
func pattern(seed int) []byte {
	out := make([]byte, 200)
	state := uint32(seed)*2654435761 + 1
	for i := range out {
		state = state*1664525 + 1013904223
		out[i] = byte(state >> 24)
	}
	return out
}
