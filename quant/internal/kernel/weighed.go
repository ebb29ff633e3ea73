package kernel

// WeighedSums are the Sums of a block that Quantize has coded, with every weight, and what it was
// decoded to, multiplied by the root of its column: squares and products weigh what roots are the
// roots of. They are laid out as Importance. MaxError says nothing then.
func (k *Kernel) WeighedSums(b *Block, roots []float32) Sums {
	s := takeScratch()
	defer scratches.Put(s)
	for row := range b.Rows {
		at := b.layout().row(row)
		for left := b.Columns; left > 0; {
			n, groups := nextRun(b.GroupSize, min(left, b.untilNextMatrixRow(at.weight)), Float32)
			for first := 0; first < n; first += tileSize {
				k.addWeighed(&s.scratch, b, roots, at, first, min(tileSize, n-first), groups)
			}
			at = at.after(n, groups, b.BitWidth)
			left -= n
		}
	}
	return s.lanes.total()
}

// addWeighed adds n weights from the first on behind a position, those of so many groups or of a
// part of one.
func (k *Kernel) addWeighed(s *scratch, b *Block, roots []float32, at position, first, n, groups int) {
	weights, decoded, codes := s.weights[:n], s.decoded[:n], s.codes[:n]
	size := b.Type.Size()
	k.steps.normalize(weights, b.Weights[(at.weight+first)*size:][:n*size], b.Type, unscaled[:1])
	Unpack(codes, b.Packed[at.packed+RowBytes(first, b.BitWidth):][:RowBytes(n, b.BitWidth)], b.BitWidth)
	levels, zeroPoints := []float32(nil), noZeroPoints[:groups]
	if d := b.Encoding.Describe(); d != nil {
		levels = d.Levels
	}
	if b.ZeroPoints != nil {
		zeroPoints = b.ZeroPoints[at.group:][:groups]
	}
	k.steps.decode(decoded, codes, levels, b.Scales[at.group:][:groups], zeroPoints)
	multiplyBoth(weights, decoded, b.ofColumns(roots, at.weight+first, n))
	k.steps.addSums(&s.lanes, weights, decoded)
}

// multiplyBoth multiplies two of as many numbers by the same factors.
func multiplyBoth(a, b, factors []float32) {
	a, b = a[:len(factors)], b[:len(factors)]
	for i, factor := range factors {
		a[i] *= factor
		b[i] *= factor
	}
}
