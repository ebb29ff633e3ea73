package quant

import (
	"encoding/binary"
	"sort"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/pyarrowquant/pyarrowquant/quant/internal/kernel"
)

// quantizedPart holds the outputs of the layers first .. end-1, which become
// one batch.
type quantizedPart struct {
	first, end                 int
	starts                     []rowSizes // of the spans of its layers
	names, shapes              *variableColumn
	packed, scales, zeroPoints *variableColumn // nil if nothing but errors is wanted
	bitWidths, groupSizes      *fixedColumn
	encodings                  []*variableColumn // of encodedFields, nil if all layers are of "int"
}

// Positions in rowSizes of a quantizedPart.
const (
	sizeName = iota
	sizeShape
	sizePacked
	sizeScales
	sizeZeroPoints
	sizeEncodings // and those of the other encodedFields
)

// split makes parts that 32-bit offsets can have.
func (q *quantization) split(limit int) {
	for i := range q.layers {
		var sizes rowSizes
		q.addSizes(&sizes, i)
		q.large = q.large || max(sizes[sizePacked], sizes[sizeScales]) > limit
	}
	first := 0
	for _, end := range splitRows(len(q.layers), limit, q.limitedSizes) {
		starts := spanStarts(q.options.Threads, end-first, func(to *rowSizes, row int) { q.addSizes(to, first+row) })
		q.parts = append(q.parts, &quantizedPart{first: first, end: end, starts: starts})
		first = end
	}
}

// addSizes adds the numbers of elements that layer i has in the variable columns.
func (q *quantization) addSizes(to *rowSizes, i int) {
	l := &q.layers[i]
	groups := l.groups()
	to[sizeName] += len(l.name)
	to[sizeShape] += len(l.shape)
	to[sizePacked] += l.packedBytes(l.settings.BitWidth)
	to[sizeScales] += groups
	if d := l.settings.encoding; d == nil || hasZeroPoints(d) {
		to[sizeZeroPoints] += groups
	}
	if q.encoded {
		l.addEncodedSizes(to)
	}
}

// limitedSizes are the sizes that 32-bit offsets limit; large columns have none.
func (q *quantization) limitedSizes(i int) (sizes rowSizes) {
	q.addSizes(&sizes, i)
	if q.large {
		sizes[sizePacked], sizes[sizeScales], sizes[sizeZeroPoints] = 0, 0, 0
	}
	return sizes
}

// makeColumns makes the memory that workers write into, and writes all that does not
// depend on weights.
func (q *quantization) makeColumns() {
	float32s, m := listOf(arrow.PrimitiveTypes.Float32, q.large), &q.memory
	for _, p := range q.parts {
		rows, total := p.end-p.first, p.starts[len(p.starts)-1]
		p.names = newVariableColumn(m, arrow.BinaryTypes.String, 1, rows, total[sizeName])
		p.shapes = newVariableColumn(m, arrow.ListOf(arrow.PrimitiveTypes.Int64), 8, rows, total[sizeShape])
		if !q.options.MeasureOnly {
			p.packed = newVariableColumn(m, binaryType(q.large), 1, rows, total[sizePacked])
			p.scales = newVariableColumn(m, float32s, 4, rows, total[sizeScales])
			p.zeroPoints = newVariableColumn(m, float32s, 4, rows, total[sizeZeroPoints])
			if q.encoded {
				p.makeEncodedColumns(m, rows, total)
			}
		}
		p.bitWidths = newFixedColumn(m, arrow.PrimitiveTypes.Uint8, rows)
		p.groupSizes = newFixedColumn(m, arrow.PrimitiveTypes.Int32, rows)
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
		p.names.setOffset(row, at[sizeName])
		p.shapes.setOffset(row, at[sizeShape])
		if p.packed != nil {
			p.packed.setOffset(row, at[sizePacked])
			p.scales.setOffset(row, at[sizeScales])
			p.zeroPoints.setOffset(row, at[sizeZeroPoints])
		}
		if p.encodings != nil {
			p.describeEncoding(row, l, at)
		}
		copy(p.names.values.Bytes()[at[sizeName]:], l.name)
		putShape(p.shapes.values.Bytes()[8*at[sizeShape]:], l.shape)
		p.bitWidths.row(row)[0] = uint8(l.settings.BitWidth)
		binary.LittleEndian.PutUint32(p.groupSizes.row(row), uint32(int32(l.settings.GroupSize.inRow())))
		q.addSizes(&at, p.first+row)
	}
}

// place finds where a layer's outputs go.
func (q *quantization) place(layer int) (p *quantizedPart, row int) {
	part := sort.Search(len(q.parts), func(i int) bool { return layer < q.parts[i].end })
	return q.parts[part], layer - q.parts[part].first
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
	columns := []outputColumn{p.names, p.packed, p.scales, p.zeroPoints, p.shapes, p.bitWidths, p.groupSizes}
	for _, c := range p.encodings {
		columns = append(columns, c)
	}
	return columns
}

func (q *quantization) metricColumns(p *quantizedPart, metrics [][9]float64) (columns []outputColumn) {
	if metrics == nil {
		return nil
	}
	for metric := range q.options.errorColumns() {
		columns = append(columns, float64Column(&q.memory, p.end-p.first, func(row int) float64 { return metrics[p.first+row][metric] }))
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
func (q *quantization) metrics() [][9]float64 {
	if q.sums == nil {
		return nil
	}
	layers, weighed := q.layerSums(q.sums), []kernel.Sums(nil)
	if q.weighed != nil {
		weighed = q.layerSums(q.weighed)
	}
	metrics := make([][9]float64, len(layers))
	for i, s := range layers {
		byColumns := s
		if q.layers[i].roots() != nil {
			byColumns = weighed[i]
		}
		metrics[i] = measuredErrors(s, byColumns, q.layers[i].elements())
	}
	return metrics
}

// layerSums are those of layers, of those of units.
func (q *quantization) layerSums(units []kernel.Sums) []kernel.Sums {
	layers := make([]kernel.Sums, len(q.layers))
	for _, t := range q.tasks {
		t.units(func(i int, u *unit) { layers[u.layer].Add(units[i]) })
	}
	return layers
}
