package kernel

import (
	"encoding/binary"
	"math"
)

// Scalar is the reference.
var Scalar = Kernel{
	Name: "scalar", Quantize: quantizeScalar, Dequantize: dequantizeScalar, Range: rangeScalar, Code: codeScalar,
}

// tileSize is how many weights are widened at a time: a multiple of 8, so that
// a tile's codes begin and end at whole bytes, and small enough for L1.
const tileSize = 1024

// scratch is the working memory of one call.
type scratch struct {
	weights [tileSize]float32
	decoded [tileSize]float32
	codes   [tileSize]uint8
	lanes   laneSums
	stop    func() bool // of the block
}

func quantizeScalar(b *Block) Fault {
	s := scratch{stop: b.Stop}
	for row := range b.Rows {
		at := b.layout().row(row)
		for left := b.Columns; left > 0; left -= b.GroupSize {
			n := min(b.GroupSize, left)
			if fault := s.quantizeGroup(b, at, n); fault.Kind != NoFault {
				return fault
			}
			at = at.after(n, 1, b.BitWidth)
		}
	}
	s.storeSums(b)
	return Fault{}
}

// quantizeGroup codes a group of n weights.
func (s *scratch) quantizeGroup(b *Block, at position, n int) Fault {
	size := b.Type.Size()
	weights := b.Weights[at.weight*size:][:n*size]
	p, fault := s.fitGroup(weights, b.importance(at.weight, n), b)
	if fault.Kind != NoFault {
		fault.Index += at.weight
		return fault
	}
	s.codeGroup(b.Packed[at.packed:][:RowBytes(n, b.BitWidth)], weights, p, b)
	b.Scales[at.group], b.ZeroPoints[at.group] = p.Scale, p.ZeroPoint
	return Fault{}
}

func (s *scratch) storeSums(b *Block) {
	if b.Sums != nil {
		*b.Sums = s.lanes.total()
	}
}

// tiles calls visit for each tile of a group, with its weights widened, until
// the block is stopped.
func (s *scratch) tiles(weights []byte, t ElementType, visit func(first int, tile []float32)) {
	size := t.Size()
	count := len(weights) / size
	for first := 0; first < count && (s.stop == nil || !s.stop()); first += tileSize {
		n := min(tileSize, count-first)
		tile := s.weights[:n]
		load(tile, weights[first*size:], t)
		visit(first, tile)
	}
}

func (s *scratch) fitGroup(weights []byte, importance []float32, b *Block) (Parameters, Fault) {
	lo, hi, fault := s.rangeOf(weights, b.Type)
	if fault.Kind != NoFault {
		return Parameters{}, fault
	}
	p, fault := Fit(lo, hi, b.Format)
	if fault.Kind != NoFault || !searchable(lo, hi, p, b.Format) {
		return p, fault
	}
	switch b.Method {
	case MeanSquares:
		p = s.search(weights, importance, lo, hi, p, b)
	case HalfQuadratic:
		p = s.hqq(weights, p, b)
	}
	return p, fault
}

func (s *scratch) rangeOf(weights []byte, t ElementType) (lo, hi float32, fault Fault) {
	lo, hi = float32(math.Inf(1)), float32(math.Inf(-1))
	s.tiles(weights, t, func(first int, tile []float32) {
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
	return lo, hi, fault
}

func rangeScalar(b *Block) (lo, hi float32, fault Fault) {
	var s scratch
	return s.rangeOf(b.Weights, b.Type)
}

func codeScalar(b *Block, p Parameters) {
	var s scratch
	s.codeGroup(b.Packed, b.Weights, p, b)
	s.storeSums(b)
}

func (s *scratch) codeGroup(packed, weights []byte, p Parameters, b *Block) {
	s.tiles(weights, b.Type, func(first int, tile []float32) {
		start := RowBytes(first, b.BitWidth)
		s.codeTile(packed[start:start+RowBytes(len(tile), b.BitWidth)], tile, p, b)
	})
}

// codeTile codes up to tileSize weights that begin at a multiple of 8 columns.
func (s *scratch) codeTile(packed []byte, weights []float32, p Parameters, b *Block) {
	codes := s.codes[:len(weights)]
	if p.extreme {
		codeExtreme(codes, weights, p, b.Format)
	} else {
		code(codes, weights, p, float32(b.MaxCode()))
	}
	pack(packed, codes, b.BitWidth)
	if b.Sums != nil {
		decoded := s.decoded[:len(weights)]
		decodeAll(decoded, codes, p.Scale, p.ZeroPoint)
		s.lanes.add(weights, decoded)
	}
}

func dequantizeScalar(b *CodedBlock) Fault {
	var s scratch
	for row := range b.Rows {
		at := b.layout().row(row)
		for left := b.Columns; left > 0; left -= b.GroupSize {
			n := min(b.GroupSize, left)
			if fault := s.dequantizeGroup(b, at, n); fault.Kind != NoFault {
				return fault
			}
			at = at.after(n, 1, b.BitWidth)
		}
	}
	return Fault{}
}

// dequantizeGroup decodes a group of n weights.
func (s *scratch) dequantizeGroup(b *CodedBlock, at position, n int) Fault {
	for first := 0; first < n; first += tileSize {
		weights := b.Weights[(at.weight+first)*b.Type.Size():]
		packed := b.Packed[at.packed+RowBytes(first, b.BitWidth):]
		if bad, value := s.decodeTile(weights, packed, min(tileSize, n-first), at.group, b); bad >= 0 {
			return Fault{Kind: Overflow, Index: at.weight + first + bad, Value: value}
		}
	}
	return Fault{}
}

// decodeTile decodes up to tileSize codes of a group. It returns the first
// weight that the output type cannot hold, or -1.
func (s *scratch) decodeTile(weights, packed []byte, n, group int, b *CodedBlock) (bad int, value float32) {
	scale, zeroPoint := float32At(b.Scales, group), float32At(b.ZeroPoints, group)
	tile, codes := s.weights[:n], s.codes[:n]
	unpack(codes, packed, b.BitWidth)
	decodeAll(tile, codes, scale, zeroPoint)
	if bad = store(weights, tile, b.Type); bad >= 0 {
		value = tile[bad]
	}
	return bad, value
}

// decodeAll decodes codes of one group.
func decodeAll(out []float32, codes []uint8, scale, zeroPoint float32) {
	out = out[:len(codes)]
	for i, q := range codes {
		out[i] = decode(q, scale, zeroPoint)
	}
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
