package quant

import (
	"sync"

	"github.com/pyarrowquant/pyarrowquant/quant/internal/kernel"
)

// unitElements is about how many weights a worker takes at a time: 256 KiB of
// float32. Where a layer is cut depends on its shape alone, so that results do
// not depend on the number of workers.
const unitElements = 64 << 10

// grouped is a matrix with the effective size of its groups, 1 .. columns. Its
// four words are as many as Go keeps in registers.
type grouped struct {
	matrix
	groupSize int
	division
}

// division is what units may divide, beside rows.
type division uint8

const (
	longGroups division = iota // groups of more than one unit
	noGroups
	anything // all weights are of one group
	noBlocks // blocks are never divided among units, though these divide rows
)

func newGrouped(m matrix, groupSize int) grouped {
	if groupSize == int(WholeRow) || groupSize > m.columns {
		groupSize = max(m.columns, 1)
	}
	return grouped{matrix: m, groupSize: groupSize}
}

func (g grouped) groups() int { return g.rows * kernel.Groups(g.columns, g.groupSize) }

func (g grouped) packedBytes(bitWidth int) int {
	return g.rows * kernel.RowBytes(g.columns, bitWidth)
}

// isLong tells whether a group is more than one unit.
func (g grouped) isLong() bool { return g.division == longGroups && g.groupSize > unitElements }

// unit is a piece of a layer: whole rows, whole groups of one row, a part of a long group,
// or whole blocks. With no rows, it is the whole layer.
type unit struct {
	layer                      int
	row, column, rows, columns int
}

// firstElement is the unit's first weight within its layer.
func (u *unit) firstElement(g grouped) int { return u.row*g.columns + u.column }

// firstGroup is the unit's first group within its layer, or the one it is part of.
func (u *unit) firstGroup(g grouped) int {
	if u.rows == 0 {
		return 0
	}
	return u.row*kernel.Groups(g.columns, g.groupSize) + u.column/g.groupSize
}

// firstByte is the unit's first packed byte within its layer.
func (u *unit) firstByte(g grouped, bitWidth int) int {
	return u.row*kernel.RowBytes(g.columns, bitWidth) + kernel.RowBytes(u.column, bitWidth)
}

func (u *unit) grouped(g grouped) grouped {
	if u.rows == 0 {
		return g
	}
	return newGrouped(matrix{rows: u.rows, columns: u.columns}, g.groupSize)
}

// task is what a worker takes at a time: the unit of a large layer, or some
// consecutive small layers, the first of which is the unit's, so that a small
// layer costs no scheduling and no memory of its own.
type task struct {
	unit
	first, count int // of its units among those of all tasks
}

// take takes the first n units out of a task.
func (t *task) take(n int) task {
	some := task{t.unit, t.first, n}
	t.layer, t.first, t.count = t.layer+n, t.first+n, t.count-n
	return some
}

// units calls visit for the units of a task, with their numbers.
func (t *task) units(visit func(i int, u *unit)) {
	u := t.unit
	for i := range t.count {
		visit(t.first+i, &u)
		u.layer++
	}
}

// tasks are a list in the order of layers.
type tasks []task

// cut divides layers 0 .. n-1 into units, on up to threads goroutines.
func cut(threads, n int, layer func(i int) *grouped) (all tasks) {
	for _, span := range inSpans(threads, n, spanRows, func(_, first, end int) tasks { return cutSpan(first, end, layer) }) {
		before := all.count()
		for _, t := range span {
			t.first += before
			all = append(all, t)
		}
	}
	return all
}

// cutSpan divides layers first .. end-1.
func cutSpan(first, end int, layer func(i int) *grouped) (all tasks) {
	joined := 0 // weights of the last task, if it may take more layers
	for i := first; i < end; i++ {
		g := layer(i)
		elements := g.elements()
		small := 0 < elements && elements <= unitElements
		switch {
		case small && joined > 0:
			all[len(all)-1].count++
		case small:
			all.add(unit{layer: i})
		case g.division == noBlocks:
			all.cutBlocks(i, g)
		case g.columns > unitElements:
			all.cutRows(i, g)
		case elements > 0:
			all.cutLayer(i, g)
		}
		if joined += elements; !small || joined >= unitElements {
			joined = 0
		}
	}
	return all
}

// count is that of all units.
func (t tasks) count() int {
	if len(t) == 0 {
		return 0
	}
	last := t[len(t)-1]
	return last.first + last.count
}

func (t *tasks) add(u unit) { *t = append(*t, task{u, t.count(), 1}) }

// cutLayer cuts between rows.
func (t *tasks) cutLayer(layer int, g *grouped) {
	step := max(1, unitElements/g.columns)
	for row := 0; row < g.rows; row += step {
		t.add(unit{layer: layer, row: row, rows: min(step, g.rows-row), columns: g.columns})
	}
}

// cutRows cuts each row between groups, and long groups within.
func (t *tasks) cutRows(layer int, g *grouped) {
	span, step := g.columns, max(1, unitElements/g.groupSize)*g.groupSize
	if g.isLong() || g.division == anything {
		span, step = g.groupSize, unitElements
	}
	for row := range g.rows {
		for first := 0; first < g.columns; first += span {
			end := min(first+span, g.columns)
			for column := first; column < end; column += step {
				t.add(unit{layer: layer, row: row, column: column, rows: 1, columns: min(step, end-column)})
			}
		}
	}
}

// cutBlocks cuts between blocks.
func (t *tasks) cutBlocks(layer int, g *grouped) {
	const rows, columns = kernel.BlockSize, unitElements / kernel.BlockSize
	for row := 0; row < g.rows; row += rows {
		for column := 0; column < g.columns; column += columns {
			t.add(unit{layer: layer, row: row, column: column, rows: min(rows, g.rows-row), columns: min(columns, g.columns-column)})
		}
	}
}

// faults are the first ones of layers, by layer; Index is the element within the
// layer. Faults are rare, so that workers may share them.
type faults struct {
	mutex sync.Mutex
	first map[int]kernel.Fault
}

// add takes what a kernel found in a unit that begins at an element of a layer.
func (f *faults) add(layer, firstElement int, fault kernel.Fault) {
	if fault.Kind == kernel.NoFault {
		return
	}
	fault.Index += firstElement
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if known, ok := f.first[layer]; ok && known.Index <= fault.Index {
		return
	}
	if f.first == nil {
		f.first = map[int]kernel.Fault{}
	}
	f.first[layer] = fault
}
