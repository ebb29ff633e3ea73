package quant

import (
	"context"
	"math"

	"github.com/pyarrowquant/pyarrowquant/quant/internal/kernel"
)

// Layers that have one scale, or one super-scale, for all weights: these have to be looked
// at before any of them can be coded.

// hasLayerScale tells whether a layer is one of them.
func (l *layer) hasLayerScale() bool {
	d := l.settings.encoding
	return d != nil && (d.LayerScale || l.settings.GroupSize == WholeTensor)
}

// fitLayerScales finds the scales and super-scales of such layers.
func (q *quantization) fitLayerScales(ctx context.Context, k *kernel.Kernel) error {
	if !q.options.encoded() {
		return nil
	}
	ends := map[int]partRange{} // of empty layers, too
	for i := range q.layers {
		if q.layers[i].hasLayerScale() {
			ends[i] = partRange{}
		}
	}
	if len(ends) == 0 {
		return nil
	}
	parts := q.partsOf(func(layer int) bool { _, has := ends[layer]; return has })
	ranges, err := q.rangesOf(ctx, k, parts)
	if err != nil {
		return err
	}
	for i, t := range parts {
		ends[t.layer] = ends[t.layer].joined(ranges[i])
	}
	q.scales, q.shared = map[int]float32{}, map[int]*kernel.SharedScale{}
	for i, r := range ends {
		if q.layers[i].settings.GroupSize == WholeTensor {
			q.shareScale(i, r)
		} else if q.options.UnitLayerScales {
			q.scales[i] = 1
		} else {
			own := layerScale(max(-r.lo, r.hi), q.layers[i].settings.encoding)
			q.scales[i] = max(own, q.options.leastLayerScale(q.layers[i].row))
		}
	}
	if err := q.searchSharedScales(ctx, k); err != nil {
		return err
	}
	if !q.options.MeasureOnly {
		q.writeLayerScales()
	}
	return nil
}

// partsOf are the units of some layers.
func (q *quantization) partsOf(wanted func(layer int) bool) (parts tasks) {
	for _, t := range q.tasks {
		t.units(func(_ int, u *unit) {
			if wanted(u.layer) {
				parts.add(*u)
			}
		})
	}
	return parts
}

// shareScale chooses the scale of a layer of finite weights with these ends.
func (q *quantization) shareScale(layer int, ends partRange) {
	if ends.bad {
		return
	}
	shared, fault := kernel.ShareScale(ends.lo, ends.hi, q.layers[layer].settings.format)
	if fault.Kind != kernel.NoFault {
		q.faults.add(layer, 0, fault)
		return
	}
	if shared.Underflows {
		q.underflowed.add(layer, 1)
	}
	q.shared[layer] = shared
}

// searchSharedScales adds up the errors of trials of all parts of layers that search.
func (q *quantization) searchSharedScales(ctx context.Context, k *kernel.Kernel) error {
	parts := q.partsOf(func(layer int) bool { s := q.shared[layer]; return s != nil && s.Searches })
	errors := make([]kernel.TrialErrors, len(parts))
	err := parts.run(ctx, q.options.Threads, func() worker {
		block := new(kernel.Block)
		return func(i int, u *unit) {
			q.fill(block, u)
			errors[i] = k.TrialErrors(block)
		}
	})
	if err != nil {
		return err
	}
	sums := map[int]*kernel.TrialErrors{}
	for i, t := range parts {
		if sums[t.layer] == nil {
			sums[t.layer] = new(kernel.TrialErrors)
		}
		sums[t.layer].Add(errors[i])
	}
	for layer, sum := range sums {
		shared := q.shared[layer]
		shared.Choose(*sum)
		if shared.Underflows {
			q.underflowed.add(layer, 1)
		}
	}
	return nil
}

// writeLayerScales writes the super-scales, and shared scales wherever they stand.
func (q *quantization) writeLayerScales() {
	for i, scale := range q.scales {
		p, row := q.place(i)
		p.superScales().float32s(row)[0] = scale
	}
	for i, shared := range q.shared {
		p, row := q.place(i)
		p.superScales().float32s(row)[0] = shared.Stored()
		fill(p.scales.float32s(row), shared.Stored())
	}
}

// fill repeats a value.
func fill(values []float32, value float32) {
	for i := range values {
		values[i] = value
	}
}

// layerScale is the super-scale of a layer whose weights are of so much magnitude: the
// least power of two with which the largest scale is within E4M3.
func layerScale(largest float32, d *kernel.Description) float32 {
	if largest == 0 {
		return 1
	}
	fraction, exponent := math.Frexp(float64(largest) / float64(d.LargestScaled()))
	if fraction == 0.5 { // a power of two
		exponent--
	}
	return float32(math.Ldexp(1, max(exponent, -126)))
}

// fillEncoded is what fill does for encodings other than "int".
func (q *quantization) fillEncoded(block *kernel.Block, u *unit) {
	l := &q.layers[u.layer]
	d := l.settings.encoding
	block.LayerScale, block.Shared = q.scales[u.layer], q.shared[u.layer]
	if block.Shared != nil && q.options.MeasureOnly {
		fill(block.Scales, block.Shared.Stored())
	}
	if d.SuperSize == 0 {
		return
	}
	part := u.grouped(l.grouped)
	first, count := u.firstSuperScale(l.grouped, d), part.rows*d.SuperScales(part.columns)
	if q.options.MeasureOnly {
		block.SuperScales, block.SuperMinimums = make([]float32, count), make([]float32, count)
		return
	}
	p, row := q.place(u.layer)
	block.SuperScales = p.superScales().float32s(row)[first:][:count]
	if d.Minimums {
		block.SuperMinimums = p.superMinimums().float32s(row)[first:][:count]
	}
}

// firstSuperScale is the unit's first super-scale within its layer.
func (u *unit) firstSuperScale(g grouped, d *kernel.Description) int {
	if u.rows == 0 {
		return 0
	}
	return u.row*d.SuperScales(g.columns) + u.column/d.SuperSize
}
