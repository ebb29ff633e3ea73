package quant

import (
	"unsafe"

	"github.com/pyarrowquant/pyarrowquant/quant/internal/kernel"
)

// quantizer is a worker of a quantization.
type quantizer struct {
	*quantization
	kernel *kernel.Kernel
	block  kernel.Block
	blocks *blockWorker // nil until there are blocks
}

// quantizeTask codes layers that are joinable together: a call of a kernel, and finding where
// outputs go, take about as long as the weights of a layer of 4 KiB.
func (w *quantizer) quantizeTask(t *task) {
	for left := *t; left.count > 0; {
		some := left.take(w.joinable(left.layer, left.count))
		if some.count == 1 || !w.quantizeJoined(some.layer, some.count) {
			some.units(w.quantizeUnit)
		}
	}
}

// joinable is how many small layers from first on, of count, are one block. They are alike, and
// their weights follow each other, as those of an Arrow list do; so do the outputs of a part.
func (w *quantizer) joinable(first, count int) int {
	l := &w.layers[first]
	if count == 1 || w.sums != nil || l.settings.encoding != nil || l.importance != nil {
		return 1
	}
	p, _ := w.place(first)
	count = min(count, p.end-first)
	n := 1
	for n < count && l.isFollowed(&w.layers[first+n], n) {
		n++
	}
	return n
}

// isFollowed tells whether a layer is like this one, and has the weights behind n such.
func (l *layer) isFollowed(other *layer, n int) bool {
	begin := n * len(l.weights)
	return other.grouped == l.grouped && other.settings == l.settings && other.element == l.element && other.importance == nil &&
		cap(l.weights) >= begin+len(l.weights) && unsafe.SliceData(other.weights) == &l.weights[:begin+1][begin]
}

// quantizeJoined codes n such layers. It tells whether that is all: where a group has a fault, or
// a scale that is rounded to 0, it is for them one by one to say which of them has it.
func (w *quantizer) quantizeJoined(first, n int) bool {
	for i := range n {
		testHook(w.layers[first+i].name)
	}
	b := &w.block
	w.fill(b, &unit{layer: first})
	b.Rows *= n
	b.Weights, b.Packed = b.Weights[:n*len(b.Weights)], b.Packed[:n*len(b.Packed)]
	b.Scales, b.ZeroPoints = b.Scales[:n*len(b.Scales)], b.ZeroPoints[:n*len(b.ZeroPoints)]
	return w.kernel.Quantize(b).Kind == kernel.NoFault && b.Underflows == 0
}

// quantizeUnit codes one unit, which is number i of all.
func (w *quantizer) quantizeUnit(i int, u *unit) {
	l := &w.layers[u.layer]
	testHook(l.name)
	var sums, weighed *kernel.Sums
	if w.sums != nil {
		sums = &w.sums[i]
	}
	roots := l.roots()
	if roots != nil {
		weighed = &w.weighed[i]
	}
	if l.division == noBlocks {
		if w.blocks == nil {
			w.blocks = newBlockWorker(w.kernel)
		}
		w.quantizeBlocks(w.blocks, u, sums, weighed)
		return
	}
	w.fill(&w.block, u)
	w.block.Sums = sums
	w.quantizeGroups(u)
	if weighed != nil {
		*weighed = w.kernel.WeighedSums(&w.block, l.importance.ofUnit(roots, u, w.block.Columns))
	}
}

// quantizeGroups codes the block, which is a unit that is not of blocks.
func (w *quantizer) quantizeGroups(u *unit) {
	g := w.layers[u.layer].grouped
	if g.division == anything && w.block.Shared == nil {
		return // the layer has a fault
	}
	if !g.isLong() {
		w.faults.add(u.layer, u.firstElement(g), w.kernel.Quantize(&w.block))
		w.underflowed.add(u.layer, w.block.Underflows)
	} else if parameters, ok := w.long[*u]; ok {
		w.kernel.Code(&w.block, parameters)
		if w.options.MeasureOnly { // where each part of the group has scales of its own
			w.block.Scales[0], w.block.ZeroPoints[0] = parameters.Scale, parameters.ZeroPoint
		}
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
		p, row := q.place(u.layer)
		firstGroup := u.firstGroup(l.grouped)
		block.Packed = p.packed.row(row)[u.firstByte(l.grouped, format.BitWidth):][:packedBytes]
		block.Scales = p.scales.float32s(row)[firstGroup:][:groups]
		if d := l.settings.encoding; d == nil || hasZeroPoints(d) {
			block.ZeroPoints = p.zeroPoints.float32s(row)[firstGroup:][:groups]
		}
	}
	if l.settings.encoding != nil {
		q.fillEncoded(block, u)
	}
	if format.Method != kernel.RoundToNearest {
		block.Stop = q.stop
	}
	if weighed := l.importance; weighed != nil {
		block.Stack = weighed.stack
		block.Stack.First = first
		block.Importance = weighed.ofUnit(weighed.values, u, part.columns)
	}
}
