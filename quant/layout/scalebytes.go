package layout

import (
	"math"

	"github.com/pyarrowquant/pyarrowquant/quant/internal/kernel"
)

// ScaleExponents writes scales that are powers of two as E8M0: a byte each.
func ScaleExponents(out []byte, l Layer, threads int) error {
	return scaleBytes(out, l, threads, func(scale float32) byte {
		return byte(math.Float32bits(scale) >> 23) // of 2^-127, which is subnormal, 0
	})
}

// ScaleFloats writes scales that E4M3 has as such: a byte each.
func ScaleFloats(out []byte, l Layer, threads int) error {
	return scaleBytes(out, l, threads, kernel.E4M3Code)
}

func scaleBytes(out []byte, l Layer, threads int, code func(scale float32) byte) error {
	if err := l.check(); err != nil {
		return err
	}
	if err := checkSize("scales", out, len(l.Scales)); err != nil {
		return err
	}
	return overRows(threads, l.Rows, l.Groups, func(first, end int) {
		for i := first * l.Groups; i < end*l.Groups; i++ {
			out[i] = code(l.Scales[i])
		}
	})
}
