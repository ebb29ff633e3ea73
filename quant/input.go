package quant

import (
	"context"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/pyarrowquant/pyarrowquant/quant/internal/kernel"
)

// matrix is the row-major form of a layer's shape. An empty layer is 0 x 0.
type matrix struct {
	rows, columns int
}

func (m matrix) elements() int { return m.rows * m.columns }

// layer is one row of the input. name and weights are views of Arrow memory.
type layer struct {
	grouped
	name    string
	row     int64
	shape   []int64
	element kernel.ElementType
	weights []byte
	// importance is a value of 0 .. 1 for each column, or nil.
	importance []float32
	settings   *layerSettings
}

// readLayers reads every row of every batch as a layer, but for those to skip.
func readLayers(ctx context.Context, batches []arrow.RecordBatch, columns inputColumns, o *Options) ([]layer, LayerErrors, error) {
	settings := o.rowSettings()
	layers, failed, err := readRows(ctx, batches, o.FirstRow, o.Threads, func(batch arrow.RecordBatch, rows int) rowReader[layer] {
		read := newLayerReader(batch, columns, rows)
		return func(l *layer, row int, inputRow int64) *LayerError {
			if s := settings(inputRow); s != nil {
				return read.read(l, row, inputRow, s)
			}
			return nil
		}
	})
	if len(o.Choices) > 0 {
		layers = slices.DeleteFunc(layers, func(l layer) bool { return l.settings == nil })
	}
	return layers, failed, err
}

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

// layerReader reads some rows of one batch.
type layerReader struct {
	dims       []int64 // memory of all shapes
	names      textReader
	weights    func(row int) ([]byte, kernel.ElementType, *problem)
	shapes     *listReader // nil: no such column
	importance *listReader // likewise
}

func newLayerReader(batch arrow.RecordBatch, columns inputColumns, rows int) *layerReader {
	r := &layerReader{dims: make([]int64, 0, 2*rows), names: newTextReader(columnLayerName, batch.Column(columns.layerName))}
	if columns.dtype >= 0 {
		r.weights = rawWeights(batch.Column(columns.weights), batch.Column(columns.dtype))
	} else {
		r.weights = listWeights(batch.Column(columns.weights))
	}
	if columns.shape >= 0 {
		r.shapes = newListReader(columnShape, batch.Column(columns.shape))
	}
	if columns.importance >= 0 {
		r.importance = newListReader(columnImportance, batch.Column(columns.importance))
	}
	return r
}

func (r *layerReader) read(l *layer, row int, inputRow int64, settings *layerSettings) *LayerError {
	name, p := r.names(row)
	if p != nil {
		return p.unnamedError(inputRow)
	}
	l.name, l.row, l.settings = name, inputRow, settings
	if l.weights, l.element, p = r.weights(row); p == nil {
		p = r.readShape(l, row)
	}
	if p == nil && l.columns > 0 && settings.format.Method == kernel.MeanSquares && r.importance != nil && !r.importance.isNull(row) {
		p = r.readImportance(l, row)
	}
	if p != nil {
		return p.layerError(name, inputRow)
	}
	return nil
}

func (r *layerReader) readShape(l *layer, row int) (p *problem) {
	count := int64(len(l.weights) / l.element.Size())
	first := len(r.dims)
	if r.shapes == nil || r.shapes.isNull(row) {
		r.dims = append(r.dims, count)
	} else if r.dims, p = r.shapes.integers(r.dims, row); p != nil {
		return p
	}
	l.shape = r.dims[first:len(r.dims):len(r.dims)]
	elements, p := elementCount(l.shape)
	if p != nil {
		return p
	}
	if elements != count {
		return problemf(KindShapeMismatch, ": Shape mismatch: shape %s has %d elements, weights has %d", shapeText(l.shape), elements, count)
	}
	l.grouped = newGrouped(matrixOf(l.shape, elements), l.settings.GroupSize)
	l.whole = l.settings.format.Method != kernel.RoundToNearest
	return nil
}

// readImportance scales the values of each group to 0 .. 1, so that sums of
// squares neither overflow nor vanish. Nothing but zeros is as good as no
// importance.
func (r *layerReader) readImportance(l *layer, row int) *problem {
	raw, p := r.importance.values(row)
	if p != nil {
		return p
	}
	values := kernel.Widen(raw, floatTypes[r.importance.element.ID()])
	if len(values) != l.columns {
		return problemf(KindImportance, ": importance has %d values, the layer has %d columns. Give one a column", len(values), l.columns)
	}
	for i, value := range values {
		if !(value >= 0) || math.IsInf(value, 1) {
			return problemf(KindImportance, ": importance at index %d is %g. It must be finite and not negative", i, value).at(int64(i))
		}
	}
	l.importance = make([]float32, 0, len(values))
	for group := range slices.Chunk(values, l.groupSize) {
		largest := slices.Max(group)
		for _, value := range group {
			share := 1.0
			if largest > 0 {
				share = value / largest
			}
			l.importance = append(l.importance, float32(share))
		}
	}
	return nil
}

// floatTypes are the elements that a list of floats may have.
var floatTypes = map[arrow.Type]kernel.ElementType{
	arrow.FLOAT16: kernel.Float16,
	arrow.FLOAT32: kernel.Float32,
	arrow.FLOAT64: kernel.Float64,
}

// listWeights reads a list of floats.
func listWeights(arr arrow.Array) func(row int) ([]byte, kernel.ElementType, *problem) {
	lists := newListReader(columnWeights, arr)
	element := floatTypes[lists.element.ID()]
	return func(row int) ([]byte, kernel.ElementType, *problem) {
		weights, p := lists.values(row)
		return weights, element, p
	}
}

// safetensorsDtypes are the names that a dtype column may have.
var safetensorsDtypes = map[string]kernel.ElementType{
	"F32":  kernel.Float32,
	"F16":  kernel.Float16,
	"BF16": kernel.BFloat16,
}

// rawWeights reads bytes whose type a second column names.
func rawWeights(values, dtypes arrow.Array) func(row int) ([]byte, kernel.ElementType, *problem) {
	bytes := newByteReader(columnWeights, values)
	names := newTextReader(columnDtype, dtypes)
	return func(row int) ([]byte, kernel.ElementType, *problem) {
		name, p := names(row)
		if p != nil {
			return nil, 0, p
		}
		element, ok := safetensorsDtypes[name]
		if !ok {
			return nil, 0, problemf(KindCorrupt, ": dtype '%s' cannot be quantized. Must be F32, F16 or BF16", name)
		}
		weights, p := bytes(row)
		if p == nil && len(weights)%element.Size() != 0 {
			p = problemf(KindCorrupt, ": weights has %d bytes, which is no whole number of %s elements of %d bytes", len(weights), name, element.Size())
		}
		return weights, element, p
	}
}

// elementCount multiplies the dimensions; none may be negative and the product
// must fit in an int64.
func elementCount(shape []int64) (int64, *problem) {
	empty := false
	for _, d := range shape {
		if d < 0 {
			return 0, problemf(KindShapeMismatch, ": Shape mismatch: shape %s has the negative dimension %d", shapeText(shape), d)
		}
		empty = empty || d == 0
	}
	if empty {
		return 0, nil
	}
	count := uint64(1)
	for _, d := range shape {
		high, low := bits.Mul64(count, uint64(d))
		if high != 0 || low > 1<<63-1 {
			return 0, problemf(KindShapeMismatch, ": Shape mismatch: shape %s has more than 2^63-1 elements", shapeText(shape))
		}
		count = low
	}
	return int64(count), nil
}

func matrixOf(shape []int64, elements int64) matrix {
	if elements == 0 {
		return matrix{}
	}
	if len(shape) < 2 {
		return matrix{rows: 1, columns: int(elements)}
	}
	return matrix{rows: int(shape[0]), columns: int(elements / shape[0])}
}

func shapeText(shape []int64) string {
	return strings.ReplaceAll(fmt.Sprint(shape), " ", ", ")
}
