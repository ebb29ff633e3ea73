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
	// importance is nil where all columns weigh the same, in a search and in errors.
	importance *importance
	settings   *layerSettings
}

// importance is what columns weigh.
type importance struct {
	// values are those of 0 .. 1 of a search, for each column; in a stack of matrices, for each
	// column of each of them; nil if it weighs columns the same.
	values []float32
	// roots are those of what columns weigh in errors, the most of which is 1, laid out as values;
	// nil if they weigh the same.
	roots []float32
	stack kernel.Stack
}

// roots are those of the layer's importance.
func (l *layer) roots() []float32 {
	if l.importance == nil {
		return nil
	}
	return l.importance.roots
}

// ofUnit is what the columns of a unit, or of all matrices of a stack, have of values that are laid
// out as those of importance, or nil.
func (i *importance) ofUnit(values []float32, u *unit, columns int) []float32 {
	if values == nil || i.stack.Elements > 0 {
		return values
	}
	return values[u.column:][:columns]
}

// readLayers reads every row of every batch as a layer, but for those to skip.
func readLayers(ctx context.Context, batches []arrow.RecordBatch, columns weightColumns, o *Options) ([]layer, LayerErrors, error) {
	settings := o.rowSettings()
	layers, failed, err := readRows(ctx, batches, o.FirstRow, o.Threads, func(batch arrow.RecordBatch, rows int) rowReader[layer] {
		read := newLayerReader(batch, columns, rows)
		read.weighs = o.MeasureOnly
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
	weighs     bool        // whether errors are weighed by importance
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
	if p == nil && l.columns > 0 && r.importance != nil && !r.importance.isNull(row) {
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

// readImportance reads what columns weigh in a search, and in errors. What only errors would use,
// since the method does not, may be of any kind.
func (r *layerReader) readImportance(l *layer, row int) *problem {
	searches := l.settings.format.Method == kernel.MeanSquares
	if !searches && !r.weighs {
		return nil
	}
	values, stack, p := r.importanceValues(l, row)
	if p != nil {
		if searches {
			return p
		}
		return nil
	}
	l.importance = &importance{stack: stack}
	if searches {
		l.importance.values = shares(values, l.together())
	}
	if r.weighs {
		l.importance.roots = rootsOf(values)
	}
	return nil
}

// importanceValues are those of the columns of a layer, or of each matrix of a stack.
func (r *layerReader) importanceValues(l *layer, row int) (values []float64, stack kernel.Stack, p *problem) {
	raw, p := r.importance.values(row)
	if p != nil {
		return nil, stack, p
	}
	values = kernel.Widen(raw, floatTypes[r.importance.element.ID()])
	if len(values) != l.columns {
		if stack, p = l.stackOf(len(values)); p != nil {
			return nil, stack, p
		}
	}
	for i, value := range values {
		if !(value >= 0) || math.IsInf(value, 1) {
			return nil, stack, problemf(KindImportance, ": importance at index %d is %g. It must be finite and not negative", i, value).at(int64(i))
		}
	}
	return values, stack, nil
}

// shares scales the values of groups that are fitted together to 0 .. 1, so that sums of
// squares neither overflow nor vanish. Nothing but zeros is as good as no
// importance.
func shares(values []float64, together int) []float32 {
	found := make([]float32, 0, len(values))
	for group := range slices.Chunk(values, together) {
		largest := slices.Max(group)
		for _, value := range group {
			share := 1.0
			if largest > 0 {
				share = value / largest
			}
			found = append(found, float32(share))
		}
	}
	return found
}

// rootsOf are those of values beside the largest; nil of nothing but zeros, which is as good as
// no importance.
func rootsOf(values []float64) []float32 {
	largest := slices.Max(values)
	if largest == 0 {
		return nil
	}
	roots := make([]float32, len(values))
	for i, value := range values {
		roots[i] = float32(math.Sqrt(value / largest))
	}
	return roots
}

// ofColumns is what a weight and those after it in its row, or in its matrix's row, have of values
// that are laid out as those of importance.
func (l *layer) ofColumns(values []float32, row, column int) []float32 {
	if m := l.importance.stack; m.Elements > 0 {
		return values[m.ImportanceOf(row*l.columns+column):]
	}
	return values[column:]
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
