package quant

import (
	"cmp"
	"context"
	"encoding/binary"
	"math"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/pyarrowquant/pyarrowquant/quant/internal/kernel"
)

// Quantize codes every layer of the batches, whose schema is given, into
// batches of results. The inputs are only read, and may be released when it
// returns. The result's buffers come from the allocator; the caller releases
// the result.
//
// Every layer is examined before failures are reported: as LayerErrors, or in
// Result.Skipped if o.ContinueOnError. Other errors wrap ErrArgument,
// ErrSchema, ErrMemory or the context's error, or are a PanicError.
func Quantize(ctx context.Context, schema *arrow.Schema, batches []arrow.RecordBatch, o Options,
	allocator memory.Allocator, progress Progress) (*Result, error) {
	defer kernel.StandardFloat()()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	columns, err := resolveInput(schema, o.TypeNames)
	if err != nil {
		return nil, err
	}
	if rows := countRows(batches); len(o.Choices) > 0 && len(o.Rows) != rows {
		return nil, argumentError("Invalid rows: settings for %d rows, the input has %d", len(o.Rows), rows)
	}
	layers, failed := readLayers(batches, columns, &o)
	if o.Sort {
		layers = sortedByName(layers)
	}
	q := newQuantization(layers, o, maxOffset)
	q.arena.allocator = allocator
	defer q.arena.release()
	if err := allocations(q.allocate); err != nil {
		return nil, err
	}
	if err := q.run(ctx, progress, failed); err != nil {
		return nil, err
	}
	for i, fault := range q.faults.first {
		failed = append(failed, layers[i].problem(fault).layerError(layers[i].name, layers[i].row))
	}
	failed.sort()
	if len(failed) > 0 && !o.ContinueOnError {
		return nil, failed
	}
	result := &Result{Skipped: failed}
	if err := allocations(func() { q.build(result) }); err != nil {
		result.Release()
		return nil, err
	}
	return result, nil
}

// sortedByName sorts stably. What is sorted are names and positions, since layers
// are large to move.
func sortedByName(layers []layer) []layer {
	if slices.IsSortedFunc(layers, func(a, b layer) int { return strings.Compare(a.name, b.name) }) {
		return layers
	}
	type entry struct {
		name string
		at   int
	}
	entries := make([]entry, len(layers))
	for i := range layers {
		entries[i] = entry{layers[i].name, i}
	}
	slices.SortFunc(entries, func(a, b entry) int {
		return cmp.Or(strings.Compare(a.name, b.name), cmp.Compare(a.at, b.at))
	})
	sorted := make([]layer, len(layers))
	for i, e := range entries {
		sorted[i] = layers[e.at]
	}
	return sorted
}

// quantization is the state of one run.
type quantization struct {
	options Options
	layers  []layer // in output order
	tasks   tasks
	large   bool
	parts   []*quantizedPart
	arena   arena
	faults  faults
	sums    []kernel.Sums              // of units; nil without metrics
	long    map[unit]kernel.Parameters // of those parts of long groups that have no fault
	stop    func() bool                // whether the run is cancelled
}

// quantizedPart holds the outputs of the layers first .. end-1, which become
// one batch.
type quantizedPart struct {
	first, end                 int
	starts                     []rowSizes // of the spans of its layers
	names, shapes              *variableColumn
	packed, scales, zeroPoints *variableColumn // nil if nothing but errors is wanted
	bitWidths, groupSizes      *fixedColumn
}

func newQuantization(layers []layer, o Options, limit int) *quantization {
	q := &quantization{
		options: o,
		layers:  layers,
		tasks:   cut(o.Threads, len(layers), func(i int) *grouped { return &layers[i].grouped }),
	}
	if o.measures() {
		q.sums = make([]kernel.Sums, q.tasks.count())
	}
	whole := spanStarts(o.Threads, len(layers), q.rowSizes)
	if total := whole[len(whole)-1]; slices.Max(total[:]) <= limit {
		q.parts = []*quantizedPart{{end: len(layers), starts: whole}}
	} else {
		q.split(limit)
	}
	return q
}

// split makes parts that 32-bit offsets can have.
func (q *quantization) split(limit int) {
	for i := range q.layers {
		sizes := q.rowSizes(i)
		q.large = q.large || max(sizes[2], sizes[3]) > limit
	}
	first := 0
	for _, end := range splitRows(len(q.layers), limit, q.limitedSizes) {
		starts := spanStarts(q.options.Threads, end-first, func(row int) rowSizes { return q.rowSizes(first + row) })
		q.parts = append(q.parts, &quantizedPart{first: first, end: end, starts: starts})
		first = end
	}
}

// rowSizes are the numbers of elements in the columns names, shapes, packed, and
// scales.
func (q *quantization) rowSizes(i int) rowSizes {
	l := &q.layers[i]
	return rowSizes{len(l.name), len(l.shape), l.packedBytes(l.settings.BitWidth), l.groups()}
}

// limitedSizes are the sizes that 32-bit offsets limit; large columns have none.
func (q *quantization) limitedSizes(i int) rowSizes {
	sizes := q.rowSizes(i)
	if q.large {
		sizes[2], sizes[3] = 0, 0
	}
	return sizes
}

// allocate makes the memory that workers write into, and writes all that does not
// depend on weights.
func (q *quantization) allocate() {
	float32s, a := listOf(arrow.PrimitiveTypes.Float32, q.large), &q.arena
	for _, p := range q.parts {
		rows, total := p.end-p.first, p.starts[len(p.starts)-1]
		p.names = newVariableColumn(a, arrow.BinaryTypes.String, 1, rows, total[0])
		p.shapes = newVariableColumn(a, arrow.ListOf(arrow.PrimitiveTypes.Int64), 8, rows, total[1])
		if !q.options.MeasureOnly {
			p.packed = newVariableColumn(a, binaryType(q.large), 1, rows, total[2])
			p.scales = newVariableColumn(a, float32s, 4, rows, total[3])
			p.zeroPoints = newVariableColumn(a, float32s, 4, rows, total[3])
		}
		p.bitWidths = newFixedColumn(a, arrow.PrimitiveTypes.Uint8, rows)
		p.groupSizes = newFixedColumn(a, arrow.PrimitiveTypes.Int32, rows)
		inSpans(q.options.Threads, rows, spanRows, func(span, first, end int) struct{} {
			q.describe(p, first, end, p.starts[span])
			return struct{}{}
		})
	}
}

// describe writes the rows first .. end-1 of a part, which begin at some elements.
func (q *quantization) describe(p *quantizedPart, first, end int, at rowSizes) {
	for row := first; row < end; row++ {
		l := &q.layers[p.first+row]
		p.names.setOffset(row, at[0])
		p.shapes.setOffset(row, at[1])
		if p.packed != nil {
			p.packed.setOffset(row, at[2])
			p.scales.setOffset(row, at[3])
			p.zeroPoints.setOffset(row, at[3])
		}
		copy(p.names.values.Bytes()[at[0]:], l.name)
		putShape(p.shapes.values.Bytes()[8*at[1]:], l.shape)
		p.bitWidths.row(row)[0] = uint8(l.settings.BitWidth)
		binary.LittleEndian.PutUint32(p.groupSizes.row(row), uint32(int32(l.settings.GroupSize)))
		at.add(q.rowSizes(p.first + row))
	}
}

// target finds where a layer's outputs go. Nearly always there is one part.
func (q *quantization) target(layer int) (packed []byte, scales, zeroPoints []float32) {
	part := 0
	for layer >= q.parts[part].end {
		part++
	}
	p, row := q.parts[part], layer-q.parts[part].first
	return p.packed.row(row),
		arrow.Float32Traits.CastFromBytes(p.scales.row(row)),
		arrow.Float32Traits.CastFromBytes(p.zeroPoints.row(row))
}

// run quantizes all units.
func (q *quantization) run(ctx context.Context, report Progress, failed LayerErrors) error {
	counter := newProgressCounter(report, q.layers, q.tasks)
	for _, e := range failed {
		counter.skip(e.name())
	}
	chosen, _ := kernel.Named(q.options.Kernel) // which Validate has found
	if err := q.fitLongGroups(ctx, chosen); err != nil {
		return err
	}
	q.stop = func() bool { return ctx.Err() != nil }
	return q.tasks.run(ctx, q.options.Threads, func() worker {
		block := new(kernel.Block)
		return func(i int, u *unit) {
			l := &q.layers[u.layer]
			testHook(l.name)
			q.fill(block, u)
			if q.sums != nil {
				block.Sums = &q.sums[i]
			}
			q.quantizeUnit(&chosen, block, u)
			counter.unitDone(u, l)
		}
	})
}

// quantizeUnit codes one unit.
func (q *quantization) quantizeUnit(k *kernel.Kernel, block *kernel.Block, u *unit) {
	g := q.layers[u.layer].grouped
	if !g.isLong() {
		q.faults.add(u.layer, u.firstElement(g), k.Quantize(block))
	} else if parameters, ok := q.long[*u]; ok {
		k.Code(block, parameters)
	}
}

// fill makes the block the kernel's view of a unit, in place: small layers are
// many.
func (q *quantization) fill(block *kernel.Block, u *unit) {
	l := &q.layers[u.layer]
	part, format := u.grouped(l.grouped), &l.settings.format
	first, size := u.firstElement(l.grouped), l.element.Size()
	*block = kernel.Block{
		Format:    *format,
		Type:      l.element,
		Rows:      part.rows,
		Columns:   part.columns,
		GroupSize: part.groupSize,
		Weights:   l.weights[first*size:][:part.elements()*size],
	}
	packedBytes, groups := part.packedBytes(format.BitWidth), part.groups()
	if q.options.MeasureOnly {
		block.Packed = make([]byte, packedBytes)
		block.Scales, block.ZeroPoints = make([]float32, groups), make([]float32, groups)
	} else {
		packed, scales, zeroPoints := q.target(u.layer)
		firstGroup := u.firstGroup(l.grouped)
		block.Packed = packed[u.firstByte(l.grouped, format.BitWidth):][:packedBytes]
		block.Scales = scales[firstGroup:][:groups]
		block.ZeroPoints = zeroPoints[firstGroup:][:groups]
	}
	if format.Method != kernel.RoundToNearest {
		block.Stop = q.stop
	}
	if l.importance != nil {
		block.Importance = l.importance[u.column:][:part.columns]
	}
}

func (l *layer) problem(fault kernel.Fault) *problem {
	if fault.Kind == kernel.ScaleRange {
		return problemf(KindScaleRange, ": the scale %g of the group at index %d is beyond the range of scale_dtype '%s'. Use scale_dtype='float32'",
			fault.Value, fault.Index, l.settings.ScaleDtype).at(int64(fault.Index))
	}
	return problemf(KindNonFinite, " contains NaN or Inf at index %d (%s). Replace such values first, for example with np.nan_to_num()",
		fault.Index, nonFiniteText(fault.Value)).at(int64(fault.Index))
}

func nonFiniteText(value float32) string {
	switch {
	case math.IsInf(float64(value), 1):
		return "Inf"
	case math.IsInf(float64(value), -1):
		return "-Inf"
	default:
		return "NaN"
	}
}

// build makes the batches of the layers that did not fail.
func (q *quantization) build(result *Result) {
	result.Schema = resultFields(&q.options, q.large)
	metrics := q.metrics()
	for _, p := range q.parts {
		columns, rows := append(p.columns(), q.metricColumns(p, metrics)...), p.end-p.first
		if len(q.faults.first) > 0 {
			kept := q.keptRows(p)
			rows = len(kept)
			for _, c := range columns {
				c.keep(kept)
			}
		}
		builders := make([]func() arrow.Array, len(columns))
		for i, c := range columns {
			builders[i] = c.build
		}
		result.Batches = append(result.Batches, newBatch(result.Schema, rows, q.options.Threads, builders))
	}
}

// columns are in the order of the schema; those of errors follow.
func (p *quantizedPart) columns() []outputColumn {
	if p.packed == nil {
		return []outputColumn{p.names, p.shapes, p.bitWidths, p.groupSizes}
	}
	return []outputColumn{p.names, p.packed, p.scales, p.zeroPoints, p.shapes, p.bitWidths, p.groupSizes}
}

func (q *quantization) metricColumns(p *quantizedPart, metrics [][6]float64) (columns []outputColumn) {
	if metrics == nil {
		return nil
	}
	for metric := range q.options.errorColumns() {
		columns = append(columns, float64Column(&q.arena, p.end-p.first, func(row int) float64 { return metrics[p.first+row][metric] }))
	}
	return columns
}

// keptRows are the rows of layers that did not fail.
func (q *quantization) keptRows(p *quantizedPart) (kept []int) {
	for row := range p.end - p.first {
		if _, failed := q.faults.first[p.first+row]; !failed {
			kept = append(kept, row)
		}
	}
	return kept
}

// metrics are each layer's errors, or nil. Units are added in order, so that
// the sums do not depend on who computed them.
func (q *quantization) metrics() [][6]float64 {
	if q.sums == nil {
		return nil
	}
	layers := make([]kernel.Sums, len(q.layers))
	for _, t := range q.tasks {
		t.units(func(i int, u *unit) { layers[u.layer].Add(q.sums[i]) })
	}
	metrics := make([][6]float64, len(layers))
	for i, s := range layers {
		metrics[i] = errorMetrics(s, q.layers[i].elements())
	}
	return metrics
}
