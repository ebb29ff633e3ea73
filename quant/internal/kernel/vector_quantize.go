package kernel

// quantize has the results of quantizeScalar.
func (v *vectorSet) quantize(b *Block) Fault {
	b.check()
	if b.Method.searches() {
		return v.quantizeSearched(b)
	}
	if b.Type == Float64 {
		return quantizeScalar(b)
	}
	s := takeScratch()
	defer v.release(s)
	l := b.layout().joined()
	for row := range l.rows {
		if fault := v.quantizeRow(s, b, l.row(row), l.columns); fault.Kind != NoFault {
			return fault
		}
	}
	s.finish(b)
	return Fault{}
}

// rangePart has the results of rangeScalar.
func (v *vectorSet) rangePart(b *Block) (lo, hi float32, fault Fault) {
	if b.Type == Float64 {
		return rangeScalar(b)
	}
	s := takeScratch()
	defer v.release(s)
	return v.rangeIn(s, b.Weights, b.Type)
}

// codePart has the results of codeScalar.
func (v *vectorSet) codePart(b *Block, p Parameters) {
	if b.Type == Float64 || p.extreme {
		codeScalar(b, p)
		return
	}
	s := takeScratch()
	defer v.release(s)
	v.codeGroup(s, b, b.Weights, b.Packed, p)
	s.storeSums(b)
}

// quantizeRow codes a row of so many columns.
func (v *vectorSet) quantizeRow(s *vectorScratch, b *Block, at position, columns int) (fault Fault) {
	for left := columns; left > 0 && fault.Kind == NoFault; {
		n, groups := nextRun(b.GroupSize, left, b.Type)
		if isRun(n, groups, b.GroupSize, b.Type) {
			fault = v.quantizeRun(s, b, at, groups)
		} else {
			fault = v.quantizeGroup(s, b, at, n)
		}
		at = at.after(n, groups, b.BitWidth)
		left -= n
	}
	return fault
}

// quantizeRun codes some whole groups.
func (v *vectorSet) quantizeRun(s *vectorScratch, b *Block, at position, groups int) Fault {
	weights, packed := &b.Weights[at.weight*b.Type.Size()], &b.Packed[at.packed]
	finite := !v.ranges[b.Type](weights, groups, b.GroupSize, &s.lo[0], &s.hi[0], bytesAhead)
	if !finite || !v.parameters(s, groups, b.Format) {
		for range groups {
			if fault := s.quantizeGroup(b, at, b.GroupSize); fault.Kind != NoFault {
				return fault
			}
			at = at.after(b.GroupSize, 1, b.BitWidth)
		}
		return Fault{}
	}
	copy(b.Scales[at.group:at.group+groups], s.scales[:])
	copy(b.ZeroPoints[at.group:at.group+groups], s.zeroPoints[:])
	v.codeRun(s, b, weights, packed, groups, b.GroupSize)
	return Fault{}
}

// quantizeGroup codes one group of n weights.
func (v *vectorSet) quantizeGroup(s *vectorScratch, b *Block, at position, n int) Fault {
	weights := b.Weights[at.weight*b.Type.Size():][:n*b.Type.Size()]
	if !v.rangeOf(s, weights, b.Type) || !v.parameters(s, 1, b.Format) {
		return s.quantizeGroup(b, at, n)
	}
	p := Parameters{Scale: s.scales[0], inverse: s.inverses[0], ZeroPoint: s.zeroPoints[0]}
	v.codeGroup(s, b, weights, b.Packed[at.packed:][:RowBytes(n, b.BitWidth)], p)
	b.Scales[at.group], b.ZeroPoints[at.group] = p.Scale, p.ZeroPoint
	return Fault{}
}
