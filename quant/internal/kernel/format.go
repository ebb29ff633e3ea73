package kernel

// ElementType is the type of the weights as they lie in memory, little-endian.
type ElementType uint8

const (
	Float32 ElementType = iota
	Float16
	BFloat16
	Float64 // rounded to float32 when read
)

// Size is the number of bytes of one element.
func (t ElementType) Size() int {
	switch t {
	case Float16, BFloat16:
		return 2
	case Float64:
		return 8
	default:
		return 4
	}
}

// ZeroPoint says how the zero-point of a group is chosen.
type ZeroPoint uint8

const (
	IntegerZero   ZeroPoint = iota // whole, 0 .. 2^b-1, so that 0.0 decodes to 0.0
	FloatZero                      // any finite float32
	SymmetricZero                  // always 2^(b-1)
)

// ScaleDtype is the type that scales are rounded to before codes are chosen.
type ScaleDtype uint8

const (
	ScaleFloat32 ScaleDtype = iota
	ScaleFloat16
	ScaleBFloat16
)

// Method says how the scale and the zero-point of a group are chosen.
type Method uint8

const (
	RoundToNearest Method = iota // over the group's smallest and largest weight
	MeanSquares                  // search for the least squared error
	HalfQuadratic                // round to nearest with an optimized zero-point
)

// searches tells whether groups are fitted by looking at their weights again and
// again.
func (m Method) searches() bool { return m != RoundToNearest }

// Format is how a group is coded.
type Format struct {
	BitWidth   int // 2, 3, 4, 5, 6 or 8
	ZeroPoint  ZeroPoint
	ScaleDtype ScaleDtype
	Method     Method
	Encoding   Encoding // Integer, or one that fixes more than the bit width
}

// MaxCode is the largest code, 2^b-1.
func (f Format) MaxCode() int { return 1<<f.BitWidth - 1 }

// RowBytes is the packed size of a row: codes are a little-endian bit stream,
// zero-padded to a whole byte.
func RowBytes(columns, bitWidth int) int {
	return columns/8*bitWidth + (columns%8*bitWidth+7)/8
}

// Groups is the number of groups in a row; the last one may be shorter.
func Groups(columns, groupSize int) int {
	return (columns + groupSize - 1) / groupSize
}
