package kernel

// codeGroup writes the codes of a group, or of a part of it.
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

// code quantizes weights with plain parameters.
func code(codes []uint8, weights []float32, p Parameters, maxCode float32) {
	for i, w := range weights {
		codes[i] = uint8(round(float32(w*p.inverse)+p.ZeroPoint, maxCode))
	}
}
