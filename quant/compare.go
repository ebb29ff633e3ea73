package quant

import (
	"context"
	"fmt"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/pyarrowquant/pyarrowquant/quant/internal/kernel"
)

// CompareOptions of a comparison.
type CompareOptions struct {
	Threads int `json:"threads"` // workers, at least 1
	// The types of columns as the caller's users know them, for errors.
	OriginalTypeNames map[string]string `json:"original_type_names"`
	ResultTypeNames   map[string]string `json:"result_type_names"`
	Kernel            Kernel            `json:"kernel"`
}

// Validate checks every bound. It wraps ErrArgument.
func (o *CompareOptions) Validate() error {
	return validThreads(o.Threads)
}

// Table is batches and their schema.
type Table struct {
	Schema  *arrow.Schema
	Batches []arrow.RecordBatch
}

// Compare gives the errors of every layer of result, in its order, against the
// layer of that name of original, a table of weights. result is what Quantize or
// Dequantize gave, or a table of weights. What only original has is ignored.
// Ownership and errors are as for Quantize; nothing is ever skipped.
func Compare(ctx context.Context, original, result Table, o CompareOptions, allocator memory.Allocator) (*Result, error) {
	defer kernel.StandardFloat()()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	weights, badWeights, err := readWeights(ctx, original, o.OriginalTypeNames, o.Threads)
	if err != nil {
		return nil, In("original", err)
	}
	decoded, badDecoded, err := readDecoded(ctx, result, o.ResultTypeNames, o.Threads, o.Kernel)
	if err != nil {
		return nil, In("result", err)
	}
	c := newComparison(match(weights, decoded, &badWeights, &badDecoded), o)
	c.memory.allocator = allocator
	defer c.memory.release()
	if err := c.run(ctx); err != nil {
		return nil, err
	}
	c.findFaults(&badWeights, &badDecoded)
	if failed := append(badWeights.in("original"), badDecoded.in("result")...); len(failed) > 0 {
		return nil, failed
	}
	compared := &Result{}
	if err := withMemory(func() { c.build(compared, maxOffset) }); err != nil {
		compared.Release()
		return nil, err
	}
	return compared, nil
}

// In says which table an error is about.
func In(table string, err error) error { return fmt.Errorf("In %s: %w", table, err) }

func readWeights(ctx context.Context, t Table, typeNames map[string]string, threads int) ([]layer, LayerErrors, error) {
	columns, err := resolveWeights(t.Schema, typeNames)
	if err != nil {
		return nil, nil, err
	}
	// Groups of whole rows make units that most other group sizes make as well.
	settings := &layerSettings{Settings: Settings{GroupSize: WholeRow}}
	return readRows(ctx, t.Batches, 0, threads, func(batch arrow.RecordBatch, rows int) rowReader[layer] {
		reader := newLayerReader(batch, columns, rows)
		return func(l *layer, row int, inputRow int64) *LayerError {
			return reader.read(l, row, inputRow, settings)
		}
	})
}

// comparedLayer is a layer of result: codes, or weights decoded elsewhere.
type comparedLayer struct {
	grouped
	name     string
	row      int64
	shape    []int64
	codes    *quantizedLayer // nil: the weights are there
	weights  kernel.Elements // if codes is nil
	original *layer
}

func readDecoded(ctx context.Context, t Table, typeNames map[string]string, threads int, k Kernel) ([]comparedLayer, LayerErrors, error) {
	if t.Schema.HasField(columnQuantizedData) {
		columns, err := resolveQuantized(t.Schema, typeNames)
		if err != nil {
			return nil, nil, err
		}
		quantized, failed, err := readQuantized(ctx, t.Batches, columns, threads, k)
		layers := make([]comparedLayer, len(quantized))
		for i := range quantized {
			l := &quantized[i]
			layers[i] = comparedLayer{grouped: l.grouped, name: l.name, row: l.row, shape: l.shape, codes: l}
		}
		return layers, failed, err
	}
	if !t.Schema.HasField(columnWeights) {
		return nil, nil, schemaError("Missing required column '%s' or '%s'. Expected schema: %s; or %s",
			columnQuantizedData, columnWeights, resultSchema, weightSchema)
	}
	weights, failed, err := readWeights(ctx, t, typeNames, threads)
	layers := make([]comparedLayer, len(weights))
	for i, l := range weights {
		layers[i] = comparedLayer{grouped: l.grouped, name: l.name, row: l.row, shape: l.shape, weights: l.values()}
	}
	return layers, failed, err
}

func (l *layer) values() kernel.Elements { return kernel.Elements{Type: l.element, Bytes: l.weights} }

// match gives the layers of result that can be compared, with their originals.
// Errors of rows of original that no layer of result needs are dropped.
func match(weights []layer, decoded []comparedLayer, badWeights, badDecoded *LayerErrors) []comparedLayer {
	needed := make(map[string]bool, len(decoded))
	for _, l := range decoded {
		needed[l.name] = true
	}
	for _, e := range *badDecoded {
		needed[e.name()] = needed[e.name()] || e.Name != nil
	}
	// A layer whose original cannot be read is known, but nil.
	originals := make(map[string]*layer, len(decoded))
	*badWeights = slices.DeleteFunc(*badWeights, func(e *LayerError) bool { return e.Name == nil || !needed[*e.Name] })
	for _, e := range *badWeights {
		originals[*e.Name] = nil
	}
	for i := range weights {
		l := &weights[i]
		first, known := originals[l.name]
		switch {
		case !needed[l.name]:
		case first != nil:
			*badWeights = append(*badWeights, duplicate(first.row).layerError(l.name, l.row))
		case !known:
			originals[l.name] = l
		}
	}
	matched := make([]comparedLayer, 0, len(decoded))
	rows := make(map[string]int64, len(decoded))
	for _, l := range decoded {
		original, known := originals[l.name]
		first, again := rows[l.name]
		var p *problem
		switch {
		case again:
			p = duplicate(first)
		case !known:
			p = problemf(KindMissing, " is not in original. Give the table that was quantized")
		case original != nil && original.elements() != l.elements():
			p = problemf(KindShapeMismatch, ": Shape mismatch: shape %s has %d elements, shape %s in original has %d",
				shapeText(l.shape), l.elements(), shapeText(original.shape), original.elements())
		case original != nil && otherMatrices(original.shape, l.shape):
			p = problemf(KindShapeMismatch, ": Shape mismatch: shape %s, in original it is %s",
				shapeText(l.shape), shapeText(original.shape))
		case original != nil:
			l.original = original
			matched = append(matched, l)
		}
		if p != nil {
			*badDecoded = append(*badDecoded, p.layerError(l.name, l.row))
		}
		if !again {
			rows[l.name] = l.row
		}
	}
	return matched
}

func duplicate(first int64) *problem {
	return problemf(KindDuplicate, " is there more than once, first in row %d. Keep one", first)
}

// comparison is the state of one run.
type comparison struct {
	options CompareOptions
	layers  []comparedLayer
	tasks   tasks
	sums    []kernel.Sums // of units
	// Weights that are NaN or Inf.
	inOriginal, inResult faults
	memory               resultMemory
}

func newComparison(layers []comparedLayer, o CompareOptions) *comparison {
	tasks := cut(o.Threads, len(layers), func(i int) *grouped { return &layers[i].grouped })
	return &comparison{
		options: o,
		layers:  layers,
		tasks:   tasks,
		sums:    make([]kernel.Sums, tasks.count()),
	}
}

func (c *comparison) run(ctx context.Context) error {
	chosen := c.options.Kernel.orFastest()
	return c.tasks.run(ctx, c.options.Threads, func() worker {
		scratch := new(decodedUnit)
		return func(i int, u *unit) {
			testHook(c.layers[u.layer].name)
			c.compareUnit(chosen, scratch, i, u)
		}
	})
}

// decodedUnit is a worker's memory for decoding.
type decodedUnit struct {
	block   kernel.CodedBlock
	weights [4 * unitElements]byte
}

// compareUnit decodes a unit if need be, and adds up its errors.
func (c *comparison) compareUnit(k *kernel.Kernel, scratch *decodedUnit, i int, u *unit) {
	l := &c.layers[u.layer]
	part, first := u.grouped(l.grouped), u.firstElement(l.grouped)
	var decoded kernel.Elements
	if l.codes != nil {
		l.codes.fill(&scratch.block, u, scratch.weights[:], kernel.Float32)
		k.Dequantize(&scratch.block) // which has no faults in float32
		decoded = kernel.Elements{Type: kernel.Float32, Bytes: scratch.block.Weights}
	} else {
		decoded = l.weights.Part(first, part.elements())
	}
	sums, inOriginal, inResult := kernel.Compare(l.original.values().Part(first, part.elements()), decoded, part.columns)
	c.sums[i] = sums
	c.inOriginal.add(u.layer, first, inOriginal)
	c.inResult.add(u.layer, first, inResult)
}

// findFaults adds the layers that have weights which are NaN or Inf.
func (c *comparison) findFaults(badWeights, badDecoded *LayerErrors) {
	for i, fault := range c.inOriginal.first {
		l := c.layers[i].original
		*badWeights = append(*badWeights, l.problem(fault).layerError(l.name, l.row))
	}
	for i, fault := range c.inResult.first {
		l := &c.layers[i]
		*badDecoded = append(*badDecoded, l.problem(fault).layerError(l.name, l.row))
	}
}

func (l *comparedLayer) problem(fault kernel.Fault) *problem {
	return problemf(KindNonFinite, " contains NaN or Inf at index %d (%s)", fault.Index, nonFiniteText(fault.Value)).at(int64(fault.Index))
}

func (c *comparison) build(result *Result, limit int) {
	result.Schema = comparisonFields()
	metrics := c.metrics()
	m, first := &c.memory, 0
	sizes := func(row int) rowSizes { return rowSizes{len(c.layers[row].name), len(c.layers[row].shape)} }
	for _, end := range splitRows(len(c.layers), limit, sizes) {
		part, values := c.layers[first:end], metrics[first:end]
		first = end
		columns := []func() arrow.Array{
			func() arrow.Array { return textColumn(m, len(part), func(row int) string { return part[row].name }) },
			func() arrow.Array { return shapeColumn(m, len(part), func(row int) []int64 { return part[row].shape }) },
		}
		for metric := range comparisonColumns {
			columns = append(columns, func() arrow.Array {
				return float64Column(m, len(part), func(row int) float64 { return values[row][metric] }).build()
			})
		}
		result.Batches = append(result.Batches, newBatch(result.Schema, len(part), c.options.Threads, columns))
	}
}

// metrics are the values of comparisonColumns. Units are added in order, as
// Quantize does.
func (c *comparison) metrics() [][6]float64 {
	layers := make([]kernel.Sums, len(c.layers))
	for _, t := range c.tasks {
		t.units(func(i int, u *unit) { layers[u.layer].Add(c.sums[i]) })
	}
	metrics := make([][6]float64, len(layers))
	for i, s := range layers {
		metrics[i] = errorMetrics(s, c.layers[i].elements())
	}
	return metrics
}
