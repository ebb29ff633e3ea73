package quant

import (
	"context"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/pyarrowquant/pyarrowquant/quant/internal/kernel"
)

// DequantizeOptions of a decoding.
type DequantizeOptions struct {
	Dtype   WeightDtype `json:"dtype"`
	Threads int         `json:"threads"` // workers, at least 1
	// TypeNames are the types of columns as the caller's users know them, for errors.
	TypeNames map[string]string `json:"type_names"`
	Kernel    Kernel            `json:"kernel"`
}

// Validate checks every bound. It wraps ErrArgument.
func (o *DequantizeOptions) Validate() error {
	return validThreads(o.Threads)
}

func (o *DequantizeOptions) element() (kernel.ElementType, arrow.DataType) {
	if o.Dtype == WeightFloat16 {
		return kernel.Float16, arrow.FixedWidthTypes.Float16
	}
	return kernel.Float32, arrow.PrimitiveTypes.Float32
}

// Dequantize decodes every layer of batches that Quantize made, in input
// order. Ownership and errors are as for Quantize; nothing is ever skipped.
func Dequantize(ctx context.Context, schema *arrow.Schema, batches []arrow.RecordBatch, o DequantizeOptions,
	allocator memory.Allocator) (*Result, error) {
	defer kernel.StandardFloat()()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	columns, err := resolveQuantized(schema, o.TypeNames)
	if err != nil {
		return nil, err
	}
	layers, failed, err := readQuantized(ctx, batches, columns, o.Threads, o.Kernel)
	if err != nil {
		return nil, err
	}
	d := newDequantization(layers, o, maxOffset)
	d.memory.allocator = allocator
	defer d.memory.release()
	if len(failed) == 0 {
		if err := withMemory(d.makeColumns); err != nil {
			return nil, err
		}
		if err := d.run(ctx); err != nil {
			return nil, err
		}
		for i, fault := range d.faults.first {
			failed = append(failed, d.problem(fault).layerError(layers[i].name, layers[i].row))
		}
	}
	if len(failed) > 0 {
		failed.sort()
		return nil, failed
	}
	result := &Result{}
	if err := withMemory(func() { d.build(result) }); err != nil {
		result.Release()
		return nil, err
	}
	return result, nil
}

// dequantization is the state of one run.
type dequantization struct {
	options  DequantizeOptions
	element  kernel.ElementType
	dataType arrow.DataType
	layers   []quantizedLayer
	tasks    tasks
	large    bool
	parts    []*decodedPart
	memory   resultMemory
	faults   faults
}

// decodedPart holds the weights of the layers first .. end-1, which become one
// batch.
type decodedPart struct {
	first, end int
	weights    *variableColumn
}

func newDequantization(layers []quantizedLayer, o DequantizeOptions, limit int) *dequantization {
	d := &dequantization{options: o, layers: layers}
	d.element, d.dataType = o.element()
	for i := range layers {
		d.large = d.large || layers[i].elements() > limit
	}
	d.tasks = cut(o.Threads, len(layers), func(i int) *grouped { return &layers[i].grouped })
	first := 0
	for _, end := range splitRows(len(layers), limit, d.rowSizes) {
		d.parts = append(d.parts, &decodedPart{first: first, end: end})
		first = end
	}
	return d
}

// rowSizes are the sizes that 32-bit offsets limit; large columns have none.
func (d *dequantization) rowSizes(i int) (sizes rowSizes) {
	sizes[0], sizes[1] = len(d.layers[i].name), len(d.layers[i].shape)
	if !d.large {
		sizes[2] = d.layers[i].elements()
	}
	return sizes
}

func (d *dequantization) makeColumns() {
	for _, p := range d.parts {
		p.weights = newPlannedColumn(&d.memory, listOf(d.dataType, d.large), d.element.Size(), p.end-p.first, func(row int) int {
			return d.layers[p.first+row].elements()
		})
	}
}

func (d *dequantization) run(ctx context.Context) error {
	chosen := d.options.Kernel.orFastest()
	targets := make([][]byte, 0, len(d.layers))
	for _, p := range d.parts {
		for row := range p.end - p.first {
			targets = append(targets, p.weights.row(row))
		}
	}
	return d.tasks.run(ctx, d.options.Threads, func() worker {
		block := new(kernel.CodedBlock)
		return func(_ int, u *unit) {
			l := &d.layers[u.layer]
			first := u.firstElement(l.grouped)
			l.fill(block, u, targets[u.layer][first*d.element.Size():], d.element)
			d.faults.add(u.layer, first, chosen.Dequantize(block))
		}
	})
}

func (d *dequantization) problem(fault kernel.Fault) *problem {
	return problemf(KindScaleRange, ": the weight at index %d decodes to %g, which is beyond dtype '%s'. Use dtype='float32'",
		fault.Index, fault.Value, d.options.Dtype).at(int64(fault.Index))
}

func (d *dequantization) build(result *Result) {
	result.Schema = weightFields(d.dataType, d.large)
	for _, p := range d.parts {
		m, rows := &d.memory, p.end-p.first
		result.Batches = append(result.Batches, newBatch(result.Schema, rows, d.options.Threads, []func() arrow.Array{
			func() arrow.Array {
				return textColumn(m, rows, func(row int) string { return d.layers[p.first+row].name })
			},
			func() arrow.Array { return p.weights.build() },
			func() arrow.Array {
				return shapeColumn(m, rows, func(row int) []int64 { return d.layers[p.first+row].shape })
			},
		}))
	}
}
