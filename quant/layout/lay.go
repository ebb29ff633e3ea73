package layout

import (
	"fmt"

	"github.com/pyarrowquant/pyarrowquant/quant"
)

// Options say what of a layer to lay out, and how.
type Options struct {
	Part      string           `json:"part"`      // a key of parts
	Width     int              `json:"width"`     // bytes of a row of codes
	Dtype     quant.ScaleDtype `json:"dtype"`     // of scales and biases
	Symmetric bool             `json:"symmetric"` // of blocks
	Encoding  quant.Encoding   `json:"encoding"`  // of encoded blocks
	Threads   int              `json:"threads"`   // at least 1
}

var parts = map[string]func(out []byte, l Layer, o Options) error{
	"blocks":         func(out []byte, l Layer, o Options) error { return Blocks(out, l, o.Symmetric, o.Threads) },
	"encoded blocks": func(out []byte, l Layer, o Options) error { return EncodedBlocks(out, l, o.Encoding, o.Threads) },
	"codes":          func(out []byte, l Layer, o Options) error { return PadRows(out, l, o.Width, o.Threads) },
	"scales":         func(out []byte, l Layer, o Options) error { return Scales(out, l, o.Dtype, o.Threads) },
	"biases":         func(out []byte, l Layer, o Options) error { return Biases(out, l, o.Dtype, o.Threads) },
	"e8m0 scales":    func(out []byte, l Layer, o Options) error { return ScaleExponents(out, l, o.Threads) },
	"e4m3 scales":    func(out []byte, l Layer, o Options) error { return ScaleFloats(out, l, o.Threads) },
	"zero_points": func(out []byte, l Layer, o Options) error {
		return ZeroPoints(out, l, o.Dtype, o.Threads)
	},
	"packed zero_points": func(out []byte, l Layer, o Options) error {
		return PackZeroPoints(out, l, o.Threads)
	},
	"zero_points packed down": func(out []byte, l Layer, o Options) error {
		return PackZeroPointsDown(out, l, o.Threads)
	},
}

// Lay writes a part of a layer into out, which has just its size.
func Lay(out []byte, l Layer, o Options) error {
	lay, known := parts[o.Part]
	if !known {
		return fmt.Errorf("%w: no part of a layer is named %q", quant.ErrArgument, o.Part)
	}
	return lay(out, l, o)
}
