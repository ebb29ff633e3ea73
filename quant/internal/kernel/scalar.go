package kernel

import (
	"encoding/binary"
	"math"
)

// Scalar is the reference.
var Scalar = Kernel{Name: "scalar", Quantize: quantizeScalar, Dequantize: dequantizeScalar}

// tileSize is how many weights are widened at a time: a multiple of 8, so that
// a tile's codes begin and end at whole bytes, and small enough for L1.
const tileSize = 1024

// scratch is the working memory of one call.
type scratch struct {
	weights [tileSize]float32
	codes   [tileSize]uint8
}

func quantizeScalar(b *Block) Fault {
	var s scratch
	var lanes laneSums
	size := b.Type.Size()
	rowBytes := RowBytes(b.Columns, b.BitWidth)
	group := 0
	for row := range b.Rows {
		packed := b.Packed[row*rowBytes : (row+1)*rowBytes]
		for column := 0; column < b.Columns; column += b.GroupSize {
			n := min(b.GroupSize, b.Columns-column)
			first := row*b.Columns + column
			weights := b.Weights[first*size : (first+n)*size]
			p, fault := s.fitGroup(weights, b)
			if fault.Kind != NoFault {
				fault.Index += first
				return fault
			}
			start := RowBytes(column, b.BitWidth)
			s.codeGroup(packed[start:start+RowBytes(n, b.BitWidth)], weights, p, b, &lanes)
			b.Scales[group], b.ZeroPoints[group] = p.scale, p.zeroPoint
			group++
		}
	}
	if b.Sums != nil {
		*b.Sums = lanes.total()
	}
	return Fault{}
}

// tiles calls visit for each tile of a group, with its weights widened.
func (s *scratch) tiles(weights []byte, t ElementType, visit func(first int, tile []float32)) {
	size := t.Size()
	count := len(weights) / size
	for first := 0; first < count; first += tileSize {
		n := min(tileSize, count-first)
		tile := s.weights[:n]
		load(tile, weights[first*size:], t)
		visit(first, tile)
	}
}

func (s *scratch) fitGroup(weights []byte, b *Block) (parameters, Fault) {
	lo, hi := float32(math.Inf(1)), float32(math.Inf(-1))
	fault := Fault{}
	s.tiles(weights, b.Type, func(first int, tile []float32) {
		for i, w := range tile {
			if !isFinite(w) && fault.Kind == NoFault {
				fault = Fault{Kind: NonFinite, Index: first + i, Value: w}
			}
			if w < lo {
				lo = w
			}
			if w > hi {
				hi = w
			}
		}
	})
	if fault.Kind != NoFault {
		return parameters{}, fault
	}
	p, ok := fit(lo, hi, b.Format)
	if !ok {
		return p, Fault{Kind: ScaleRange, Value: p.scale}
	}
	return p, Fault{}
}

func (s *scratch) codeGroup(packed, weights []byte, p parameters, b *Block, lanes *laneSums) {
	maxCode := float32(b.MaxCode())
	s.tiles(weights, b.Type, func(first int, tile []float32) {
		codes := s.codes[:len(tile)]
		if p.extreme {
			codeExtreme(codes, tile, p, b.Format)
		} else {
			code(codes, tile, p, maxCode)
		}
		start := RowBytes(first, b.BitWidth)
		pack(packed[start:start+RowBytes(len(tile), b.BitWidth)], codes, b.BitWidth)
		if b.Sums != nil {
			lanes.add(tile, codes, p)
		}
	})
}

func dequantizeScalar(b *CodedBlock) Fault {
	var s scratch
	size := b.Type.Size()
	rowBytes := RowBytes(b.Columns, b.BitWidth)
	group := 0
	for row := range b.Rows {
		packed := b.Packed[row*rowBytes : (row+1)*rowBytes]
		for column := 0; column < b.Columns; column += b.GroupSize {
			end := min(column+b.GroupSize, b.Columns)
			scale, zeroPoint := float32At(b.Scales, group), float32At(b.ZeroPoints, group)
			for first := column; first < end; first += tileSize {
				tile := s.weights[:min(tileSize, end-first)]
				codes := s.codes[:len(tile)]
				unpack(codes, packed[RowBytes(first, b.BitWidth):], b.BitWidth)
				for i, q := range codes {
					tile[i] = decode(q, scale, zeroPoint)
				}
				at := row*b.Columns + first
				if bad := store(b.Weights[at*size:], tile, b.Type); bad >= 0 {
					return Fault{Kind: Overflow, Index: at + bad, Value: tile[bad]}
				}
			}
			group++
		}
	}
	return Fault{}
}

// store writes a tile and returns the first element that the type cannot
// hold, or -1.
func store(out []byte, tile []float32, t ElementType) int {
	if t == Float32 {
		for i, w := range tile {
			binary.LittleEndian.PutUint32(out[i*4:], math.Float32bits(w))
		}
		return -1
	}
	for i, w := range tile {
		h := narrowFloat16(w)
		if h&0x7c00 == 0x7c00 && isFinite(w) {
			return i
		}
		binary.LittleEndian.PutUint16(out[i*2:], h)
	}
	return -1
}

func float32At(values []byte, i int) float32 {
	return math.Float32frombits(binary.LittleEndian.Uint32(values[i*4:]))
}
