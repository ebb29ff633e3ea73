package quant

import (
	"context"
	"math"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/pyarrowquant/pyarrowquant/quant/internal/kernel"
)

// layer is one row of the input. name and weights are views of Arrow memory. Layers may be many,
// and are gone through several times: they have two cache lines each.
type layer struct {
	grouped
	name    string
	row     int64
	shape   []int64
	element kernel.ElementType
	weights []byte
	// importance is nil where all columns weigh the same.
	importance *importance
	settings   *layerSettings
}

// importance is a value of 0 .. 1 for each column; in a stack of matrices, for each column of
// each of them.
type importance struct {
	values []float32
	stack  kernel.Stack
}

// readLayers reads every row of every batch as a layer, but for those to skip.
func readLayers(ctx context.Context, batches []arrow.RecordBatch, columns weightColumns, o *Options) ([]layer, LayerErrors, error) {
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

// layerReader reads some rows of one batch.
type layerReader struct {
	dims       []int64 // memory of all shapes
	names      textReader
	weights    weightsReader
	shapes     *listReader // nil: no such column
	importance *listReader // likewise
}

// weightsReader gives the weights of a row, and appends to dims the shape that they have
// by themselves: one dimension, but for nested lists.
type weightsReader func(dims []int64, row int) (weights []byte, shape []int64, element kernel.ElementType, p *problem)

func newLayerReader(batch arrow.RecordBatch, columns weightColumns, rows int) *layerReader {
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
	first := len(r.dims)
	if l.weights, r.dims, l.element, p = r.weights(r.dims, row); p == nil {
		p = r.readShape(l, row, first)
	}
	if p == nil && l.columns > 0 && settings.format.Method == kernel.MeanSquares && r.importance != nil && !r.importance.isNull(row) {
		p = r.readImportance(l, row)
	}
	if p != nil {
		return p.layerError(name, inputRow)
	}
	return nil
}

// readShape reads the shape of a layer, whose weights have the dimensions from first on by
// themselves.
func (r *layerReader) readShape(l *layer, row, first int) (p *problem) {
	count := int64(len(l.weights) / l.element.Size())
	if r.shapes != nil && !r.shapes.isNull(row) {
		own := len(r.dims)
		if r.dims, p = r.shapes.integers(r.dims, row); p != nil {
			return p
		}
		if own-first > 1 {
			if p := agree(r.dims[first:own], r.dims[own:]); p != nil {
				return p
			}
		}
		first = own
	}
	l.shape = r.dims[first:len(r.dims):len(r.dims)]
	elements, p := elementCount(l.shape)
	if p != nil {
		return p
	}
	if elements != count {
		return problemf(KindShapeMismatch, ": Shape mismatch: shape %s has %d elements, weights has %d", shapeText(l.shape), elements, count)
	}
	l.grouped = newGrouped(matrixOf(l.shape, elements), l.settings.GroupSize.inRow())
	l.division = l.settings.division()
	return nil
}

// readImportance scales the values of groups that are fitted together to 0 .. 1, so that sums of
// squares neither overflow nor vanish. Nothing but zeros is as good as no
// importance.
func (r *layerReader) readImportance(l *layer, row int) *problem {
	raw, p := r.importance.values(row)
	if p != nil {
		return p
	}
	values := kernel.Widen(raw, floatTypes[r.importance.element.ID()])
	weighed := &importance{values: make([]float32, 0, len(values))}
	if len(values) != l.columns {
		if weighed.stack, p = l.stackOf(len(values)); p != nil {
			return p
		}
	}
	for i, value := range values {
		if !(value >= 0) || math.IsInf(value, 1) {
			return problemf(KindImportance, ": importance at index %d is %g. It must be finite and not negative", i, value).at(int64(i))
		}
	}
	for group := range slices.Chunk(values, l.together()) {
		largest := slices.Max(group)
		for _, value := range group {
			share := 1.0
			if largest > 0 {
				share = value / largest
			}
			weighed.values = append(weighed.values, float32(share))
		}
	}
	l.importance = weighed
	return nil
}

// importanceOf is that of a weight and of those after it in its row, or in its matrix's row.
func (l *layer) importanceOf(row, column int) []float32 {
	if m := l.importance.stack; m.Elements > 0 {
		return l.importance.values[m.ImportanceOf(row*l.columns+column):]
	}
	return l.importance.values[column:]
}

// together is how many columns are fitted together.
func (l *layer) together() int {
	if d := l.settings.encoding; d != nil {
		return max(l.groupSize, d.SuperSize)
	}
	return l.groupSize
}

// stackOf takes a layer of three dimensions or more for a stack of matrices, which have count
// columns all together.
func (l *layer) stackOf(count int) (kernel.Stack, *problem) {
	if last := len(l.shape) - 1; last >= 2 {
		columns, elements := int(l.shape[last]), int(l.shape[last]*l.shape[last-1])
		if matrices := l.elements() / elements; matrices*columns == count {
			if columns%l.together() != 0 {
				return kernel.Stack{}, problemf(KindImportance, ": importance has %d values, those of %d matrices of %d columns, which are no whole groups of %d",
					count, matrices, columns, l.together())
			}
			return kernel.Stack{Columns: columns, Elements: elements}, nil
		}
	}
	return kernel.Stack{}, problemf(KindImportance, ": importance has %d values, the layer has %d columns. Give one a column", count, l.columns)
}

// floatTypes are the elements that a list of floats may have.
var floatTypes = map[arrow.Type]kernel.ElementType{
	arrow.FLOAT16: kernel.Float16,
	arrow.FLOAT32: kernel.Float32,
	arrow.FLOAT64: kernel.Float64,
}

// listWeights reads lists of floats, or of such lists.
func listWeights(arr arrow.Array) weightsReader {
	lists := newListReader(columnWeights, arr)
	element := floatTypes[lists.innermost().element.ID()]
	return func(dims []int64, row int) ([]byte, []int64, kernel.ElementType, *problem) {
		weights, dims, p := lists.tensor(dims, row)
		return weights, dims, element, p
	}
}

// safetensorsDtypes are the names that a dtype column may have.
var safetensorsDtypes = map[string]kernel.ElementType{
	"F32":  kernel.Float32,
	"F16":  kernel.Float16,
	"BF16": kernel.BFloat16,
}

// rawWeights reads bytes whose type a second column names.
func rawWeights(values, dtypes arrow.Array) weightsReader {
	bytes := newByteReader(columnWeights, values)
	names := newTextReader(columnDtype, dtypes)
	return func(dims []int64, row int) ([]byte, []int64, kernel.ElementType, *problem) {
		name, p := names(row)
		if p != nil {
			return nil, dims, 0, p
		}
		element, ok := safetensorsDtypes[name]
		if !ok {
			return nil, dims, 0, problemf(KindCorrupt, ": dtype '%s' cannot be quantized. Must be F32, F16 or BF16", name)
		}
		weights, p := bytes(row)
		if p == nil && len(weights)%element.Size() != 0 {
			p = problemf(KindCorrupt, ": weights has %d bytes, which is no whole number of %s elements of %d bytes", len(weights), name, element.Size())
		}
		return weights, append(dims, int64(len(weights)/element.Size())), element, p
	}
}
