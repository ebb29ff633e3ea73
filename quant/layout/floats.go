package layout

import (
	"fmt"
	"math"

	"github.com/pyarrowquant/pyarrowquant/quant"
	"github.com/pyarrowquant/pyarrowquant/quant/internal/kernel"
)

// Exponents writes scales, which are powers of two, as E8M0: a byte each.
func Exponents(out []byte, l Layer, threads int) error {
	return scaleBytes(out, l, threads, func(scale float32) uint8 { return uint8(math.Float32bits(scale) >> 23) })
}

// SmallScales writes scales, which are multiples of a scale of the layer, as E4M3: a
// byte each.
func SmallScales(out []byte, l Layer, layerScale float32, threads int) error {
	if !(layerScale > 0) {
		return fmt.Errorf("%w: a scale of the layer of %g", quant.ErrArgument, layerScale)
	}
	return scaleBytes(out, l, threads, func(scale float32) uint8 { return kernel.E4M3Bits(scale / layerScale) })
}

func scaleBytes(out []byte, l Layer, threads int, byteOf func(scale float32) uint8) error {
	if err := l.check(); err != nil {
		return err
	}
	if err := checkSize("scales", out, len(l.Scales)); err != nil {
		return err
	}
	return overRows(threads, l.Rows, 4*l.Groups, func(first, end int) {
		for i := first * l.Groups; i < end*l.Groups; i++ {
			out[i] = byteOf(l.Scales[i])
		}
	})
}

// SignedCodes writes codes of 8 bits less their symmetric zero-point, as signed bytes.
func SignedCodes(out []byte, l Layer, threads int) error {
	if err := l.check(); err != nil {
		return err
	}
	if l.BitWidth != 8 {
		return fmt.Errorf("%w: codes of %d bits are no bytes", quant.ErrArgument, l.BitWidth)
	}
	if err := checkSize("codes", out, len(l.Codes)); err != nil {
		return err
	}
	return overRows(threads, l.Rows, l.RowBytes, func(first, end int) {
		for i := first * l.RowBytes; i < end*l.RowBytes; i++ {
			out[i] = l.Codes[i] ^ 0x80
		}
	})
}
