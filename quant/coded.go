package quant

import (
	"encoding/binary"
	"math"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/pyarrowquant/pyarrowquant/quant/internal/kernel"
)

// codedLayer is one row of a result. All slices are views of Arrow memory, but
// for shape.
type codedLayer struct {
	grouped
	name               string
	row                int64
	shape              []int64
	bitWidth           int
	packed             []byte
	scales, zeroPoints []byte // little-endian float32
}

// readCoded reads every row of every batch of a result.
func readCoded(batches []arrow.RecordBatch, columns codedColumns, threads int) ([]codedLayer, LayerErrors) {
	return readRows(batches, 0, threads, func(batch arrow.RecordBatch, _ int) rowReader[codedLayer] {
		return newCodedReader(batch, columns).read
	})
}

// codedReader reads the rows of one batch of a result.
type codedReader struct {
	names               textReader
	packed              byteReader
	scales, zeroPoints  *listReader
	shapes              *listReader
	bitWidth, groupSize func(row int) (int64, *problem)
}

func newCodedReader(batch arrow.RecordBatch, columns codedColumns) *codedReader {
	return &codedReader{
		names:      newTextReader(columnLayerName, batch.Column(columns.layerName)),
		packed:     newByteReader(columnQuantizedData, batch.Column(columns.quantizedData)),
		scales:     newListReader(columnScales, batch.Column(columns.scales)),
		zeroPoints: newListReader(columnZeroPoints, batch.Column(columns.zeroPoints)),
		shapes:     newListReader(columnShape, batch.Column(columns.shape)),
		bitWidth:   requiredInteger(columnBitWidth, batch.Column(columns.bitWidth)),
		groupSize:  requiredInteger(columnGroupSize, batch.Column(columns.groupSize)),
	}
}

func requiredInteger(column string, arr arrow.Array) func(row int) (int64, *problem) {
	read := newIntegerReader(arr)
	return func(row int) (int64, *problem) {
		if arr.IsNull(row) {
			return 0, problemf(KindNull, ": %s is null", column)
		}
		return read(row), nil
	}
}

func (r *codedReader) read(l *codedLayer, row int, inputRow int64) *LayerError {
	name, p := r.names(row)
	if p != nil {
		return p.unnamedError(inputRow)
	}
	l.name, l.row = name, inputRow
	if p := r.readFields(l, row); p != nil {
		return p.layerError(name, inputRow)
	}
	return nil
}

func (r *codedReader) readFields(l *codedLayer, row int) (p *problem) {
	if l.packed, p = r.packed(row); p != nil {
		return p
	}
	if l.scales, p = r.scales.values(row); p != nil {
		return p
	}
	if l.zeroPoints, p = r.zeroPoints.values(row); p != nil {
		return p
	}
	if l.shape, p = r.shapes.integers(nil, row); p != nil {
		return p
	}
	bitWidth, p := r.bitWidth(row)
	if p != nil {
		return p
	}
	groupSize, p := r.groupSize(row)
	if p != nil {
		return p
	}
	return l.check(bitWidth, groupSize)
}

// check compares the sizes of the parts with what the shape needs.
func (l *codedLayer) check(bitWidth, groupSize int64) *problem {
	if !slices.Contains(bitWidths, int(bitWidth)) {
		return problemf(KindCorrupt, ": bit_width is %d, it must be 2, 3, 4, 5, 6 or 8", bitWidth)
	}
	if !validGroupSize(groupSize) {
		return problemf(KindCorrupt, ": group_size is %d, it must be a multiple of 8 or -1", groupSize)
	}
	elements, p := elementCount(l.shape)
	if p != nil {
		return p
	}
	// Every row takes at least a byte and every byte holds at most 4 codes, so
	// this bound keeps the sizes below from overflowing.
	if limit := int64(len(l.packed)) * 4; elements > limit {
		return problemf(KindCorrupt, ": shape %s has %d elements, quantized_data has only %d bytes", shapeText(l.shape), elements, len(l.packed))
	}
	l.bitWidth = int(bitWidth)
	l.grouped = newGrouped(matrixOf(l.shape, elements), int(groupSize))
	if want := l.packedBytes(l.bitWidth); len(l.packed) != want {
		return problemf(KindCorrupt, ": quantized_data has %d bytes, shape %s at %d bits needs %d", len(l.packed), shapeText(l.shape), bitWidth, want)
	}
	if p := checkGroupCount(columnScales, l.scales, l.groups()); p != nil {
		return p
	}
	if p := checkGroupCount(columnZeroPoints, l.zeroPoints, l.groups()); p != nil {
		return p
	}
	return l.checkGroups()
}

func checkGroupCount(column string, values []byte, groups int) *problem {
	if len(values) != 4*groups {
		return problemf(KindCorrupt, ": %s has %d values, the layer has %d groups", column, len(values)/4, groups)
	}
	return nil
}

// checkGroups refuses scales and zero-points that no quantization gives.
func (l *codedLayer) checkGroups() *problem {
	for group := range l.groups() {
		scale, zeroPoint := float32At(l.scales, group), float32At(l.zeroPoints, group)
		if scale == 0 || !isFinite(scale) {
			return problemf(KindCorrupt, ": the scale of group %d is %g, it must be finite and not 0", group, scale)
		}
		if !isFinite(zeroPoint) {
			return problemf(KindCorrupt, ": the zero-point of group %d is %g, it must be finite", group, zeroPoint)
		}
	}
	return nil
}

func float32At(values []byte, i int) float32 {
	return math.Float32frombits(binary.LittleEndian.Uint32(values[4*i:]))
}

func isFinite(x float32) bool { return x-x == 0 }

// fill makes the block the kernel's view of a unit of the layer, writing to the
// begin of out.
func (l *codedLayer) fill(block *kernel.CodedBlock, u *unit, out []byte, element kernel.ElementType) {
	part := u.grouped(l.grouped)
	firstGroup, groups := u.firstGroup(l.grouped), part.groups()
	*block = kernel.CodedBlock{
		BitWidth:   l.bitWidth,
		Rows:       part.rows,
		Columns:    part.columns,
		GroupSize:  part.groupSize,
		Packed:     l.packed[u.firstByte(l.grouped, l.bitWidth):][:part.packedBytes(l.bitWidth)],
		Scales:     l.scales[4*firstGroup:][:4*groups],
		ZeroPoints: l.zeroPoints[4*firstGroup:][:4*groups],
		Type:       element,
		Weights:    out[:part.elements()*element.Size()],
	}
}
