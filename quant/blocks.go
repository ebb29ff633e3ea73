package quant

import (
	"github.com/pyarrowquant/pyarrowquant/quant/internal/kernel"
)

// Blocks of kernel.BlockSize rows and columns have one scale. They are a group each: their
// weights, which lie in as many pieces as rows, are brought together before, and their codes,
// of 8 bits, apart again.

const blockElements = kernel.BlockSize * kernel.BlockSize

// blockWorker codes blocks one after the other.
type blockWorker struct {
	kernel  *kernel.Kernel
	weights []byte // of float64 at most
	codes   [blockElements]byte
	columns [blockElements]float32 // what is known of each weight's column
	block   kernel.Block
	sums    kernel.Sums
	scale   [1]float32
}

func newBlockWorker(k *kernel.Kernel) *blockWorker {
	return &blockWorker{kernel: k, weights: make([]byte, 8*blockElements)}
}

// quantizeBlocks codes the blocks of a unit, and adds to its sums unless they are nil.
func (q *quantization) quantizeBlocks(w *blockWorker, u *unit, sums, weighed *kernel.Sums) {
	g := q.layers[u.layer].grouped
	part := u.grouped(g)
	for row := 0; row < part.rows; row += kernel.BlockSize {
		for column := 0; column < part.columns; column += kernel.BlockSize {
			q.quantizeBlock(w, sums, weighed, &unit{
				layer: u.layer,
				row:   u.row + row, column: u.column + column,
				rows: min(kernel.BlockSize, part.rows-row), columns: min(kernel.BlockSize, part.columns-column),
			})
		}
	}
}

// quantizeBlock codes the block that is this unit.
func (q *quantization) quantizeBlock(w *blockWorker, sums, weighed *kernel.Sums, u *unit) {
	l := &q.layers[u.layer]
	w.gather(l, u)
	if l.settings.format.Method != kernel.RoundToNearest {
		w.block.Stop = q.stop
	}
	w.sums = kernel.Sums{}
	if sums != nil {
		w.block.Sums = &w.sums
	}
	fault := w.kernel.Quantize(&w.block)
	if fault.Kind != kernel.NoFault {
		fault.Index = fault.Index/u.columns*l.columns + fault.Index%u.columns
		q.faults.add(u.layer, u.firstElement(l.grouped), fault)
		return
	}
	q.underflowed.add(u.layer, w.block.Underflows)
	if sums != nil {
		sums.Add(w.sums)
	}
	if weighed != nil {
		weighed.Add(w.kernel.WeighedSums(&w.block, w.ofColumns(l, l.roots(), u)))
	}
	if !q.options.MeasureOnly {
		q.scatter(w, u)
	}
}

// gather makes the worker's block of a unit's weights, a single group.
func (w *blockWorker) gather(l *layer, u *unit) {
	size, elements := l.element.Size(), u.rows*u.columns
	for row := range u.rows {
		from := ((u.row+row)*l.columns + u.column) * size
		copy(w.weights[row*u.columns*size:], l.weights[from:][:u.columns*size])
	}
	w.block = kernel.Block{
		Format: l.settings.format,
		Type:   l.element,
		Rows:   1, Columns: elements, GroupSize: elements,
		Weights: w.weights[:elements*size],
		Packed:  w.codes[:elements],
		Scales:  w.scale[:],
	}
	if l.importance != nil && l.importance.values != nil {
		w.block.Importance = w.ofColumns(l, l.importance.values, u)
	}
}

// ofColumns gives what each weight of a unit has of values that are laid out as importance, until
// it is called again.
func (w *blockWorker) ofColumns(l *layer, values []float32, u *unit) []float32 {
	for row := range u.rows {
		copy(w.columns[row*u.columns:], l.ofColumns(values, u.row+row, u.column)[:u.columns])
	}
	return w.columns[:u.rows*u.columns]
}

// scatter writes the codes of the worker's block, and its scale wherever it stands.
func (q *quantization) scatter(w *blockWorker, u *unit) {
	g := q.layers[u.layer].grouped
	p, at := q.place(u.layer)
	packed, scales := p.packed.row(at), p.scales.float32s(at)
	groups, column := kernel.Groups(g.columns, kernel.BlockSize), u.column/kernel.BlockSize
	for row := range u.rows {
		copy(packed[(u.row+row)*g.columns+u.column:], w.codes[row*u.columns:][:u.columns])
		scales[(u.row+row)*groups+column] = w.scale[0]
	}
	p.superScales().float32s(at)[u.row/kernel.BlockSize*groups+column] = w.scale[0]
}
