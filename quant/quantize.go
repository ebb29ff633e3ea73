package quant

import (
	"cmp"
	"context"
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
	columns, err := resolveWeights(schema, o.TypeNames)
	if err != nil {
		return nil, err
	}
	if rows := countRows(batches); len(o.Choices) > 0 && len(o.Rows) != rows {
		return nil, argumentError("Invalid rows: settings for %d rows, the input has %d", len(o.Rows), rows)
	}
	if rows := countRows(batches); len(o.LayerScales) > 0 && len(o.LayerScales) != rows {
		return nil, argumentError("Invalid layer_scales: %d, the input has %d rows", len(o.LayerScales), rows)
	}
	layers, failed, err := readLayers(ctx, batches, columns, &o)
	if err != nil {
		return nil, err
	}
	if o.Sort {
		layers = sortedByName(layers)
	}
	q := newQuantization(layers, o, maxOffset)
	q.memory.allocator = allocator
	defer q.memory.release()
	if err := withMemory(q.makeColumns); err != nil {
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
	result := &Result{Skipped: failed, Underflows: q.underflows()}
	if err := withMemory(func() { q.build(result) }); err != nil {
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
	encoded bool    // whether a layer may have another encoding than "int"
	layers  []layer // in output order
	tasks   tasks
	large   bool
	parts   []*quantizedPart
	memory  resultMemory
	faults  faults

	underflowed underflows
	sums        []kernel.Sums               // of units; nil without metrics
	weighed     []kernel.Sums               // of units of layers with roots; nil if sums alone are wanted
	long        map[unit]kernel.Parameters  // of those parts of long groups that have no fault
	scales      map[int]float32             // of layers whose encoding has a super-scale of the layer
	shared      map[int]*kernel.SharedScale // of layers that have one scale, and no fault
	stop        func() bool                 // whether the run is cancelled
}

func newQuantization(layers []layer, o Options, limit int) *quantization {
	q := &quantization{
		options: o,
		encoded: o.encoded() && !o.MeasureOnly,
		layers:  layers,
		tasks:   cut(o.Threads, len(layers), func(i int) *grouped { return &layers[i].grouped }),
	}
	if o.measures() {
		q.sums = make([]kernel.Sums, q.tasks.count())
	}
	if o.MeasureOnly && slices.ContainsFunc(layers, func(l layer) bool { return l.roots() != nil }) {
		q.weighed = make([]kernel.Sums, q.tasks.count())
	}
	starts := spanStarts(o.Threads, len(layers), q.addSizes)
	if total := starts[len(starts)-1]; slices.Max(total[:]) <= limit {
		q.parts = []*quantizedPart{{end: len(layers), starts: starts}}
	} else {
		q.split(limit)
	}
	return q
}

// run quantizes all units.
func (q *quantization) run(ctx context.Context, report Progress, failed LayerErrors) error {
	counter := newProgressCounter(report, q.layers, q.tasks)
	for _, e := range failed {
		counter.skip(e.name())
	}
	chosen := q.options.Kernel.orFastest()
	if err := q.weighTails(ctx, chosen); err != nil {
		return err
	}
	if err := q.fitLongGroups(ctx, chosen); err != nil {
		return err
	}
	if err := q.fitLayerScales(ctx, chosen); err != nil {
		return err
	}
	q.stop = func() bool { return ctx.Err() != nil }
	return q.tasks.runTasks(ctx, q.options.Threads, func() func(*task) {
		w := &quantizer{quantization: q, kernel: chosen}
		return func(t *task) {
			w.quantizeTask(t)
			t.units(func(_ int, u *unit) { counter.unitDone(u, &q.layers[u.layer]) })
		}
	})
}

func (l *layer) problem(fault kernel.Fault) *problem {
	if d := l.settings.encoding; fault.Kind == kernel.ScaleRange && d != nil && d.SuperSize > 0 {
		return problemf(KindScaleRange, ": the super-scale %g of the %d columns at index %d is beyond what encoding '%s' stores, float16 of at most 65504. Use another encoding for this layer",
			fault.Value, d.SuperSize, fault.Index, l.settings.Encoding).at(int64(fault.Index))
	} else if fault.Kind == kernel.ScaleRange && d != nil && !d.Shares {
		stored := "float16 of at most 65504"
		if d.LayerScale { // that of a format that has none: 1
			stored = "E4M3 of at most 448"
		}
		return problemf(KindScaleRange, ": the scale %g of the group at index %d is beyond what encoding '%s' stores, %s. Use another encoding for this layer",
			fault.Value, fault.Index, l.settings.Encoding, stored).at(int64(fault.Index))
	}
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
