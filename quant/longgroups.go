package quant

import (
	"context"

	"github.com/pyarrowquant/pyarrowquant/quant/internal/kernel"
)

// partRange is what a unit finds of its part of a long group.
type partRange struct {
	lo, hi float32
	bad    bool // it has a fault
}

func (p partRange) joined(other partRange) partRange {
	return partRange{min(p.lo, other.lo), max(p.hi, other.hi), p.bad || other.bad}
}

// fitLongGroups chooses the parameters of all groups of more than one unit, and
// writes their scales and zero-points: all parts of a group have to be looked at
// before any of them can be coded.
func (q *quantization) fitLongGroups(ctx context.Context, k *kernel.Kernel) error {
	var parts tasks
	for _, t := range q.tasks {
		if q.layers[t.layer].isLong() {
			parts.add(t.unit)
		}
	}
	if len(parts) == 0 {
		return nil
	}
	ranges, err := q.rangesOf(ctx, k, parts)
	if err != nil {
		return err
	}
	q.long = map[unit]kernel.Parameters{}
	for first := 0; first < len(parts); {
		end := first + 1
		for end < len(parts) && q.sameGroup(&parts[first].unit, &parts[end].unit) {
			end++
		}
		q.fitLongGroup(parts[first:end], ranges[first:end])
		first = end
	}
	return nil
}

// rangesOf looks at all weights of some parts.
func (q *quantization) rangesOf(ctx context.Context, k *kernel.Kernel, parts tasks) ([]partRange, error) {
	ranges := make([]partRange, len(parts))
	err := parts.run(ctx, q.options.Threads, func() worker {
		block := new(kernel.Block)
		return func(i int, u *unit) {
			q.fill(block, u)
			lo, hi, fault := k.Range(block)
			q.faults.add(u.layer, u.firstElement(q.layers[u.layer].grouped), fault)
			ranges[i] = partRange{lo, hi, fault.Kind != kernel.NoFault}
		}
	})
	return ranges, err
}

func (q *quantization) sameGroup(a, b *unit) bool {
	g := q.layers[a.layer].grouped
	return a.layer == b.layer && a.firstGroup(g) == b.firstGroup(g)
}

// fitLongGroup joins the ranges of one group's parts. A fault in one part stops
// the coding of all.
func (q *quantization) fitLongGroup(parts tasks, ranges []partRange) {
	joined := ranges[0]
	for _, r := range ranges {
		joined = joined.joined(r)
	}
	if joined.bad {
		return
	}
	first := &parts[0].unit
	l := &q.layers[first.layer]
	parameters, fault := kernel.Fit(joined.lo, joined.hi, l.settings.format)
	if fault.Kind != kernel.NoFault {
		q.faults.add(first.layer, first.firstElement(l.grouped), fault)
		return
	}
	if parameters.Underflows() {
		q.underflowed.add(first.layer, 1)
	}
	for _, t := range parts {
		q.long[t.unit] = parameters
	}
	var block kernel.Block
	q.fill(&block, first)
	block.Scales[0], block.ZeroPoints[0] = parameters.Scale, parameters.ZeroPoint
}
