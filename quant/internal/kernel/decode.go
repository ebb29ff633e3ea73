package kernel

import (
	"encoding/binary"
	"math"
)

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
	scale, zeroPoint := float32At(b.Scales, group), float32(0)
	if b.ZeroPoints != nil {
		zeroPoint = float32At(b.ZeroPoints, group)
	}
	tile, codes := s.weights[:n], s.codes[:n]
	unpack(codes, packed, b.BitWidth)
	decodeAllLevels(tile, codes, b.Levels, scale, zeroPoint)
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

// decodeAllLevels decodes codes that stand for levels, or for themselves.
func decodeAllLevels(out []float32, codes []uint8, levels []float32, scale, zeroPoint float32) {
	if levels == nil {
		decodeAll(out, codes, scale, zeroPoint)
		return
	}
	for i, q := range codes {
		out[i] = float32(levels[q]-zeroPoint) * scale
	}
}

// decodeGroups decodes codes of groups of the same length.
func decodeGroups(out []float32, codes []uint8, levels, scales, zeroPoints []float32) {
	size := len(codes) / len(scales)
	for i, scale := range scales {
		decodeAllLevels(out[i*size:(i+1)*size], codes[i*size:(i+1)*size], levels, scale, zeroPoints[i])
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
		h := Float16Bits(w)
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

func decode(code uint8, scale, zeroPoint float32) float32 {
	return float32(float32(code)-zeroPoint) * scale
}
