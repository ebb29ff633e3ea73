package quant

import "github.com/pyarrowquant/pyarrowquant/quant/internal/kernel"

// unitElements is about how many weights a worker takes at a time: 256 KiB of
// float32. Where a layer is cut depends on its shape alone, so that results do
// not depend on the number of workers.
const unitElements = 64 << 10

// grouped is a matrix with the effective size of its groups, 1 .. columns.
type grouped struct {
	matrix
	groupSize    int
	groupsPerRow int
	whole        bool // groups are never divided among units
}

func newGrouped(m matrix, groupSize int) grouped {
	if groupSize == WholeRow || groupSize > m.columns {
		groupSize = max(m.columns, 1)
	}
	return grouped{matrix: m, groupSize: groupSize, groupsPerRow: kernel.Groups(m.columns, groupSize)}
}

func (g grouped) groups() int { return g.rows * g.groupsPerRow }

func (g grouped) packedBytes(bitWidth int) int {
	return g.rows * kernel.RowBytes(g.columns, bitWidth)
}

// isLong tells whether a group is more than one unit.
func (g grouped) isLong() bool { return !g.whole && g.groupSize > unitElements }

// unit is a piece of a layer: whole rows, whole groups of one row, or a part of
// a long group.
type unit struct {
	layer                      int
	row, column, rows, columns int
}

// firstElement is the unit's first weight within its layer.
func (u unit) firstElement(g grouped) int { return u.row*g.columns + u.column }

// firstGroup is the unit's first group within its layer, or the one it is part of.
func (u unit) firstGroup(g grouped) int { return u.row*g.groupsPerRow + u.column/g.groupSize }

// firstByte is the unit's first packed byte within its layer.
func (u unit) firstByte(g grouped, bitWidth int) int {
	return u.row*kernel.RowBytes(g.columns, bitWidth) + kernel.RowBytes(u.column, bitWidth)
}

func (u unit) grouped(g grouped) grouped {
	if u.rows == g.rows && u.columns == g.columns {
		return g // the whole layer
	}
	return newGrouped(matrix{rows: u.rows, columns: u.columns}, g.groupSize)
}

// cut divides layers into units, in order.
func cut(layers []grouped) []unit {
	units := make([]unit, 0, len(layers))
	for i, g := range layers {
		if g.columns > unitElements {
			units = cutRows(units, i, g)
		} else if g.elements() > 0 {
			units = cutLayer(units, i, g)
		}
	}
	return units
}

// cutLayer cuts between rows.
func cutLayer(units []unit, layer int, g grouped) []unit {
	step := max(1, unitElements/g.columns)
	for row := 0; row < g.rows; row += step {
		units = append(units, unit{layer: layer, row: row, rows: min(step, g.rows-row), columns: g.columns})
	}
	return units
}

// cutRows cuts each row between groups, and long groups within.
func cutRows(units []unit, layer int, g grouped) []unit {
	span, step := g.columns, max(1, unitElements/g.groupSize)*g.groupSize
	if g.isLong() {
		span, step = g.groupSize, unitElements
	}
	for row := range g.rows {
		for first := 0; first < g.columns; first += span {
			end := min(first+span, g.columns)
			for column := first; column < end; column += step {
				units = append(units, unit{layer: layer, row: row, column: column, rows: 1, columns: min(step, end-column)})
			}
		}
	}
	return units
}

// tasks joins consecutive small units, so that a small layer costs no
// scheduling of its own. Task i is units[ends[i-1]:ends[i]].
func tasks(units []unit) (ends []int) {
	elements := 0
	for i, u := range units {
		elements += u.rows * u.columns
		if elements >= unitElements || i == len(units)-1 {
			ends = append(ends, i+1)
			elements = 0
		}
	}
	return ends
}

// firstFaults gives each layer's first fault, or nil, from those of its units.
func firstFaults(layers int, units []unit, faults []kernel.Fault) []*kernel.Fault {
	first := make([]*kernel.Fault, layers)
	for i, u := range units {
		if faults[i].Kind != kernel.NoFault && first[u.layer] == nil {
			first[u.layer] = &faults[i]
		}
	}
	return first
}
