package layout

import (
	"encoding/binary"
	"math"

	"github.com/pyarrowquant/pyarrowquant/quant"
	"github.com/pyarrowquant/pyarrowquant/quant/internal/kernel"
)

// Scales rounds scales to a dtype, ties to even; what is beyond it becomes infinite.
func Scales(out []byte, l Layer, dtype quant.ScaleDtype, threads int) error {
	return rounded(out, l, dtype, threads, func(_ []float32, scales []float32, i int) float32 { return scales[i] })
}

// ZeroPoints rounds zero-points as Scales does.
func ZeroPoints(out []byte, l Layer, dtype quant.ScaleDtype, threads int) error {
	return rounded(out, l, dtype, threads, func(zeros, _ []float32, i int) float32 { return zeros[i] })
}

// Biases rounds what codes of zero decode to, -zero_point * scale in float32.
func Biases(out []byte, l Layer, dtype quant.ScaleDtype, threads int) error {
	return rounded(out, l, dtype, threads, func(zeros, scales []float32, i int) float32 { return -zeros[i] * scales[i] })
}

func rounded(out []byte, l Layer, dtype quant.ScaleDtype, threads int, value func(zeros, scales []float32, i int) float32) error {
	if err := l.check(); err != nil {
		return err
	}
	size := 2
	if dtype == quant.ScaleFloat32 {
		size = 4
	}
	if err := checkSize("scales", out, size*len(l.Scales)); err != nil {
		return err
	}
	return overRows(threads, l.Rows, 4*l.Groups, func(first, end int) {
		for i := first * l.Groups; i < end*l.Groups; i++ {
			x := value(l.ZeroPoints, l.Scales, i)
			switch at := out[size*i : size*(i+1)]; dtype {
			case quant.ScaleFloat32:
				binary.LittleEndian.PutUint32(at, math.Float32bits(x))
			case quant.ScaleFloat16:
				binary.LittleEndian.PutUint16(at, kernel.Float16Bits(x))
			case quant.ScaleBFloat16:
				binary.LittleEndian.PutUint16(at, kernel.BFloat16Bits(x))
			}
		}
	})
}
