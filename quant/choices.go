package quant

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pyarrowquant/pyarrowquant/quant/internal/kernel"
)

// Options that are one of a few names are decoded from these by UnmarshalText, whose
// errors wrap ErrArgument and list the names. So what has been decoded is valid.

// Method says how the scale and the zero-point of a group are chosen.
type Method kernel.Method

const (
	RoundToNearest = Method(kernel.RoundToNearest) // "rtn": over the group's smallest and largest weight
	MeanSquares    = Method(kernel.MeanSquares)    // "mse": search for the least squared error
	HalfQuadratic  = Method(kernel.HalfQuadratic)  // "hqq": round to nearest with an optimized zero-point
)

var methodNames = []string{RoundToNearest: "rtn", MeanSquares: "mse", HalfQuadratic: "hqq"}

func (m Method) String() string                { return methodNames[m] }
func (m Method) MarshalText() ([]byte, error)  { return []byte(m.String()), nil }
func (m *Method) UnmarshalText(t []byte) error { return unmarshalName(m, "method", t, methodNames) }

// ZeroPoint says which zero-points a group of codes of b bits may have.
type ZeroPoint kernel.ZeroPoint

const (
	IntegerZero   = ZeroPoint(kernel.IntegerZero)   // "integer": whole, 0 .. 2^b-1, so that 0.0 decodes to 0.0
	FloatZero     = ZeroPoint(kernel.FloatZero)     // "float": any finite float32
	SymmetricZero = ZeroPoint(kernel.SymmetricZero) // "symmetric": always 2^(b-1)
)

var zeroPointNames = []string{IntegerZero: "integer", FloatZero: "float", SymmetricZero: "symmetric"}

func (z ZeroPoint) String() string               { return zeroPointNames[z] }
func (z ZeroPoint) MarshalText() ([]byte, error) { return []byte(z.String()), nil }
func (z *ZeroPoint) UnmarshalText(t []byte) error {
	return unmarshalName(z, "zero_point", t, zeroPointNames)
}

// ScaleDtype is the type that scales are rounded to before codes are chosen.
type ScaleDtype kernel.ScaleDtype

const (
	ScaleFloat32  = ScaleDtype(kernel.ScaleFloat32)  // "float32"
	ScaleFloat16  = ScaleDtype(kernel.ScaleFloat16)  // "float16"
	ScaleBFloat16 = ScaleDtype(kernel.ScaleBFloat16) // "bfloat16"
)

var scaleDtypeNames = []string{ScaleFloat32: "float32", ScaleFloat16: "float16", ScaleBFloat16: "bfloat16"}

func (s ScaleDtype) String() string               { return scaleDtypeNames[s] }
func (s ScaleDtype) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
func (s *ScaleDtype) UnmarshalText(t []byte) error {
	return unmarshalName(s, "scale_dtype", t, scaleDtypeNames)
}

// Encoding says what numbers codes stand for, and how scales are stored.
type Encoding kernel.Encoding

var encodingNames = []string{
	kernel.Integer: "int", kernel.Q2K: "q2_k", kernel.Q3K: "q3_k", kernel.Q4K: "q4_k", kernel.Q5K: "q5_k", kernel.Q6K: "q6_k",
	kernel.IQ4NL: "iq4_nl", kernel.IQ4XS: "iq4_xs", kernel.NF4: "nf4", kernel.MXFP4: "mxfp4", kernel.MXFP8: "mxfp8",
	kernel.NVFP4: "nvfp4", kernel.FP8: "fp8",
}

func (e Encoding) String() string               { return encodingNames[e] }
func (e Encoding) MarshalText() ([]byte, error) { return []byte(e.String()), nil }
func (e *Encoding) UnmarshalText(t []byte) error {
	return unmarshalName(e, "encoding", t, encodingNames)
}

// describe gives what the encoding fixes, nil for "int".
func (e Encoding) describe() *kernel.Description { return kernel.Encoding(e).Describe() }

// WeightDtype is the type of decoded weights.
type WeightDtype uint8

const (
	WeightFloat32 WeightDtype = iota // "float32"
	WeightFloat16                    // "float16", rounded to nearest
)

var weightDtypeNames = []string{WeightFloat32: "float32", WeightFloat16: "float16"}

func (w WeightDtype) String() string               { return weightDtypeNames[w] }
func (w WeightDtype) MarshalText() ([]byte, error) { return []byte(w.String()), nil }
func (w *WeightDtype) UnmarshalText(t []byte) error {
	return unmarshalName(w, "dtype", t, weightDtypeNames)
}

// Kernel is the implementation that computes; results do not depend on it. Its names
// are those of the kernels that this CPU can run. The zero value, and "", is the
// fastest of them.
type Kernel struct{ chosen *kernel.Kernel }

func (k Kernel) MarshalText() ([]byte, error) {
	if k.chosen == nil {
		return nil, nil
	}
	return []byte(k.chosen.Name), nil
}

func (k *Kernel) UnmarshalText(text []byte) error {
	chosen, ok := kernel.Named(string(text))
	if !ok {
		var names []string
		for _, each := range kernel.All() {
			names = append(names, each.Name)
		}
		return nameError("kernel of PYARROWQUANT_KERNEL", text, names)
	}
	k.chosen = &chosen
	return nil
}

// orFastest is the kernel to compute with.
func (k Kernel) orFastest() *kernel.Kernel {
	if k.chosen != nil {
		return k.chosen
	}
	fastest, _ := kernel.Named("")
	return &fastest
}

// unmarshalName sets an option to the value that has this name; names are by value.
func unmarshalName[T ~uint8](to *T, option string, text []byte, names []string) error {
	value := slices.Index(names, string(text))
	if value < 0 {
		return nameError(option, text, names)
	}
	*to = T(value)
	return nil
}

func nameError(option string, text []byte, names []string) error {
	quoted := make([]string, len(names))
	for i, name := range names {
		quoted[i] = fmt.Sprintf("'%s'", name)
	}
	return argumentError("Invalid %s: '%s'. Must be %s", option, text, strings.Join(quoted, ", "))
}
