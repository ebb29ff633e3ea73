package quant

import (
	"context"
	"math"

	"github.com/pyarrowquant/pyarrowquant/quant/internal/kernel"
)

// fitLayerScales finds the super-scales of layers whose encoding has one a layer: all
// weights have to be looked at before any of them can be coded.
func (q *quantization) fitLayerScales(ctx context.Context, k *kernel.Kernel) error {
	q.scales = map[int]float32{} // the largest weights first; 0 of empty layers
	for i := range q.layers {
		if d := q.layers[i].settings.encoding; d != nil && d.LayerScale {
			q.scales[i] = 0
		}
	}
	if len(q.scales) == 0 {
		return nil
	}
	var parts tasks
	for _, t := range q.tasks {
		t.units(func(_ int, u *unit) {
			if _, has := q.scales[u.layer]; has {
				parts.add(*u)
			}
		})
	}
	largest := make([]float32, len(parts))
	err := parts.run(ctx, q.options.Threads, func() worker {
		block := new(kernel.Block)
		return func(i int, u *unit) {
			q.fill(block, u)
			lo, hi, fault := k.Range(block)
			q.faults.add(u.layer, u.firstElement(q.layers[u.layer].grouped), fault)
			largest[i] = max(-lo, hi)
		}
	})
	if err != nil {
		return err
	}
	for i, t := range parts {
		q.scales[t.layer] = max(q.scales[t.layer], largest[i])
	}
	for i, weight := range q.scales {
		q.scales[i] = layerScale(weight, q.layers[i].settings.encoding)
		if !q.options.MeasureOnly {
			p, row := q.place(i)
			p.superScales().float32s(row)[0] = q.scales[i]
		}
	}
	return nil
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
	block.LayerScale = q.scales[u.layer]
	if d.SuperSize == 0 {
		return
	}
	first, count := u.firstSuperScale(l.grouped, d), superScales(u.grouped(l.grouped), d)
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
