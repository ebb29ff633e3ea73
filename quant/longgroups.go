package quant

import (
	"context"

	"github.com/pyarrowquant/pyarrowquant/quant/internal/kernel"
)

// partRange is what a unit finds of its part of a long group.
type partRange struct{ lo, hi float32 }

// fitLongGroups chooses the parameters of all groups of more than one unit, and
// writes their scales and zero-points: all parts of a group have to be looked at
// before any of them can be coded.
func (q *quantization) fitLongGroups(ctx context.Context, k kernel.Kernel) error {
	var parts []int // units
	for i, u := range q.units {
		if q.grouped[u.layer].isLong() {
			parts = append(parts, i)
		}
	}
	if len(parts) == 0 {
		return nil
	}
	units := make([]unit, len(parts))
	for p, i := range parts {
		units[p] = q.units[i]
	}
	ranges := make([]partRange, len(parts))
	err := runUnits(ctx, q.options.Threads, units, func(p int) {
		i := parts[p]
		ranges[p].lo, ranges[p].hi, q.faults[i] = k.Range(q.block(i))
		q.faults[i].Index += units[p].firstElement(q.grouped[units[p].layer])
	})
	if err != nil {
		return err
	}
	q.long = make([]kernel.Parameters, len(q.units))
	for first := 0; first < len(parts); {
		end := first + 1
		for end < len(parts) && q.sameGroup(units[first], units[end]) {
			end++
		}
		q.fitLongGroup(parts[first:end], ranges[first:end])
		first = end
	}
	return nil
}

func (q *quantization) sameGroup(a, b unit) bool {
	return a.layer == b.layer && a.firstGroup(q.grouped[a.layer]) == b.firstGroup(q.grouped[b.layer])
}

// fitLongGroup joins the ranges of one group's parts. A fault in one part stops
// the coding of all.
func (q *quantization) fitLongGroup(parts []int, ranges []partRange) {
	var fault kernel.Fault
	joined := ranges[0]
	for p, i := range parts {
		joined = partRange{min(joined.lo, ranges[p].lo), max(joined.hi, ranges[p].hi)}
		if fault.Kind == kernel.NoFault {
			fault = q.faults[i]
		}
	}
	var parameters kernel.Parameters
	if fault.Kind == kernel.NoFault {
		parameters, fault = kernel.Fit(joined.lo, joined.hi, q.layers[q.units[parts[0]].layer].settings.format)
		fault.Index = q.units[parts[0]].firstElement(q.grouped[q.units[parts[0]].layer])
	}
	for _, i := range parts {
		q.faults[i], q.long[i] = fault, parameters
	}
	block := q.block(parts[0])
	block.Scales[0], block.ZeroPoints[0] = parameters.Scale, parameters.ZeroPoint
}
