package quant

import (
	"context"
	"encoding/binary"
	"math"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/pyarrowquant/pyarrowquant/quant/internal/kernel"
)

// quantizedLayer is one row of a result. All slices are views of Arrow memory, but
// for shape.
type quantizedLayer struct {
	grouped
	name               string
	row                int64
	shape              []int64
	bitWidth           int
	packed             []byte
	scales, zeroPoints []byte        // little-endian float32; zeroPoints may be nil: all 0
	encoded            *encodedLayer // nil for "int"
}

// readQuantized reads every row of every batch of a result. The error is that of the
// context.
func readQuantized(ctx context.Context, batches []arrow.RecordBatch, columns quantizedColumns, threads int, k Kernel) ([]quantizedLayer, LayerErrors, error) {
	layers, failed, err := readRows(ctx, batches, 0, threads, func(batch arrow.RecordBatch, _ int) rowReader[quantizedLayer] {
		return newQuantizedReader(batch, columns).read
	})
	if err != nil {
		return nil, nil, err
	}
	bad, err := badGroups(ctx, layers, threads, k.orFastest())
	if err != nil {
		return nil, nil, err
	}
	if len(bad) == 0 {
		return layers, failed, nil
	}
	kept := layers[:0]
	for i, l := range layers {
		if group, ok := bad[i]; ok {
			failed = append(failed, l.groupProblem(group.Index).layerError(l.name, l.row))
		} else {
			kept = append(kept, l)
		}
	}
	failed.sort()
	return kept, failed, nil
}

// quantizedReader reads the rows of one batch of a result.
type quantizedReader struct {
	names               textReader
	packed              byteReader
	scales, zeroPoints  *listReader
	shapes              *listReader
	bitWidth, groupSize func(row int) (int64, *problem)
	encodings           *encodedReader // nil: no such column
}

func newQuantizedReader(batch arrow.RecordBatch, columns quantizedColumns) *quantizedReader {
	r := &quantizedReader{
		names:      newTextReader(columnLayerName, batch.Column(columns.layerName)),
		packed:     newByteReader(columnQuantizedData, batch.Column(columns.quantizedData)),
		scales:     newListReader(columnScales, batch.Column(columns.scales)),
		zeroPoints: newListReader(columnZeroPoints, batch.Column(columns.zeroPoints)),
		shapes:     newListReader(columnShape, batch.Column(columns.shape)),
		bitWidth:   requiredInteger(columnBitWidth, batch.Column(columns.bitWidth)),
		groupSize:  requiredInteger(columnGroupSize, batch.Column(columns.groupSize)),
	}
	if columns.encodings[0] >= 0 {
		r.encodings = newEncodedReader(batch, columns.encodings)
	}
	return r
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

func (r *quantizedReader) read(l *quantizedLayer, row int, inputRow int64) *LayerError {
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

func (r *quantizedReader) readFields(l *quantizedLayer, row int) (p *problem) {
	if l.packed, p = r.packed(row); p != nil {
		return p
	}
	if l.scales, p = r.scales.values(row); p != nil {
		return p
	}
	if r.encodings != nil {
		if l.encoded, p = r.encodings.read(row); p != nil {
			return p
		}
	}
	if l.encoded == nil || !r.zeroPoints.isNull(row) {
		if l.zeroPoints, p = r.zeroPoints.values(row); p != nil {
			return p
		}
		if l.zeroPoints == nil {
			l.zeroPoints = []byte{} // of a list that is there, and empty
		}
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
	if p := l.check(bitWidth, groupSize); p != nil || l.encoded == nil {
		return p
	}
	return l.encoded.check(l, groupSize)
}

// check compares the sizes of the parts with what the shape needs. Their content is
// left to badGroups.
func (l *quantizedLayer) check(bitWidth, groupSize int64) *problem {
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
	if l.zeroPoints == nil {
		return nil
	}
	return checkGroupCount(columnZeroPoints, l.zeroPoints, l.groups())
}

func checkGroupCount(column string, values []byte, groups int) *problem {
	if len(values) != 4*groups {
		return problemf(KindCorrupt, ": %s has %d values, the layer has %d groups", column, len(values)/4, groups)
	}
	return nil
}

// badGroups finds the first group of each layer that has a scale or a zero-point
// which no quantization gives. A layer has up to an eighth as many groups as weights,
// so that it is cut for the workers as if its groups were weights of one row.
func badGroups(ctx context.Context, layers []quantizedLayer, threads int, k *kernel.Kernel) (map[int]kernel.Fault, error) {
	groups := make([]grouped, len(layers))
	all := cut(threads, len(layers), func(i int) *grouped {
		groups[i] = newGrouped(matrix{rows: 1, columns: layers[i].groups()}, 1)
		return &groups[i]
	})
	var bad faults
	err := all.run(ctx, threads, func() worker {
		return func(_ int, u *unit) {
			l, g := &layers[u.layer], groups[u.layer]
			first := u.firstElement(g)
			if group := l.firstBadGroup(first, first+u.grouped(g).columns, k); group >= 0 {
				bad.add(u.layer, 0, kernel.Fault{Kind: kernel.ScaleRange, Index: group})
			}
		}
	})
	return bad.first, err
}

// firstBadGroup is the first of some groups whose scale or zero-point is not possible, or -1.
func (l *quantizedLayer) firstBadGroup(first, end int, k *kernel.Kernel) int {
	if l.encoded != nil {
		return l.encoded.firstBadGroup(l, first, end, k)
	}
	if has := l.storedGroups(first, end); k.AllStored(nil, &has) {
		return -1
	}
	most := l.largestLevel()
	for group := first; group < end; group++ {
		scale, zeroPoint := float32At(l.scales, group), float32At(l.zeroPoints, group)
		if scale == 0 || !isFinite(reach(most, zeroPoint, scale)) && l.hasInfinite(group) {
			return group
		}
	}
	return -1
}

// groupProblem says what is wrong with a group.
func (l *quantizedLayer) groupProblem(group int) *problem {
	if l.encoded != nil {
		return l.encoded.groupProblem(l, group)
	}
	if scale := float32At(l.scales, group); scale == 0 || !isFinite(scale) {
		return problemf(KindCorrupt, ": the scale of group %d is %g, it must be finite and not 0", group, scale)
	}
	if zeroPoint := float32At(l.zeroPoints, group); !isFinite(zeroPoint) {
		return problemf(KindCorrupt, ": the zero-point of group %d is %g, it must be finite", group, zeroPoint)
	}
	return l.infiniteProblem(group)
}

func float32At(values []byte, i int) float32 {
	return math.Float32frombits(binary.LittleEndian.Uint32(values[4*i:]))
}

func isFinite(x float32) bool { return x-x == 0 }

// fill makes the block the kernel's view of a unit of the layer, writing to the
// begin of out.
func (l *quantizedLayer) fill(block *kernel.CodedBlock, u *unit, out []byte, element kernel.ElementType) {
	part := u.grouped(l.grouped)
	firstGroup, groups := u.firstGroup(l.grouped), part.groups()
	*block = kernel.CodedBlock{
		BitWidth:  l.bitWidth,
		Rows:      part.rows,
		Columns:   part.columns,
		GroupSize: part.groupSize,
		Packed:    l.packed[u.firstByte(l.grouped, l.bitWidth):][:part.packedBytes(l.bitWidth)],
		Scales:    l.scales[4*firstGroup:][:4*groups],
		Type:      element,
		Weights:   out[:part.elements()*element.Size()],
	}
	if l.zeroPoints != nil {
		block.ZeroPoints = l.zeroPoints[4*firstGroup:][:4*groups]
	}
	if l.encoded != nil {
		block.Levels = l.encoded.levels
	}
}
