package kernel

// The stages of the reference, for runs: ranges, parameters, codes.

// rangeOf finds lo[0] and hi[0]: of all but the last weights, fewer than 8, with
// vectors. It returns false if a weight is not finite, or if all are too few.
func (v *vectorSet) rangeOf(s *vectorScratch, weights []byte, t ElementType) bool {
	n := len(weights) / t.Size()
	whole := n &^ 7
	finite := whole > 0 && !v.ranges[t](&weights[0], 1, whole, &s.lo[0], &s.hi[0], 0)
	rest := s.weights[:n-whole]
	load(rest, weights[whole*t.Size():], t)
	for _, w := range rest {
		finite = finite && isFinite(w)
		s.lo[0], s.hi[0] = min(s.lo[0], w), max(s.hi[0], w)
	}
	return finite
}

// rangeIn has the results of the reference's rangeOf.
func (v *vectorSet) rangeIn(s *vectorScratch, weights []byte, t ElementType) (lo, hi float32, fault Fault) {
	if t == Float64 || !v.rangeOf(s, weights, t) {
		return s.scratch.rangeOf(weights, t)
	}
	return s.lo[0], s.hi[0], Fault{}
}

// parameters chooses those of groups whose ranges are known. It returns
// false if one of them needs more than the plain formulas.
func (v *vectorSet) parameters(s *vectorScratch, groups int, f Format) (plain bool) {
	if v.fit[f.ZeroPoint][f.ScaleDtype](&s.lo[0], &s.hi[0], groups, float32(f.MaxCode()), half(f), &s.scales[0], &s.inverses[0], &s.zeroPoints[0]) {
		return true
	}
	for k := range groups {
		p, ok := fit(s.lo[k], s.hi[k], f)
		if !ok || p.extreme {
			return false
		}
		s.scales[k], s.inverses[k], s.zeroPoints[k] = p.Scale, p.inverse, p.ZeroPoint
	}
	return true
}

// codeRun writes the codes of groups whose parameters are known.
func (v *vectorSet) codeRun(s *vectorScratch, b *Block, weights, packed *byte, groups, groupSize int) {
	codes := s.runCodes[:groups*groupSize]
	v.code[b.Type](weights, groups, groupSize, &s.inverses[0], &s.zeroPoints[0], float32(b.MaxCode()), &codes[0], bytesAhead)
	v.packRun(s, b, packed, codes)
	if b.Sums != nil {
		v.sums[b.Type](weights, groups, groupSize, &s.scales[0], &s.zeroPoints[0], &codes[0], &s.lanes.error[0], bytesAhead+runBytes)
	}
}

// codeGroup codes one group, or a part of it, likewise. p is plain.
func (v *vectorSet) codeGroup(s *vectorScratch, b *Block, weights, packed []byte, p Parameters) {
	size := b.Type.Size()
	n := len(weights) / size
	whole := n &^ 7
	s.scales[0], s.inverses[0], s.zeroPoints[0] = p.Scale, p.inverse, p.ZeroPoint
	for first := 0; first < whole; first += runWeights(b.Type) {
		v.codeRun(s, b, &weights[first*size], &packed[RowBytes(first, b.BitWidth)], 1, min(runWeights(b.Type), whole-first))
	}
	rest := s.weights[:n-whole]
	load(rest, weights[whole*size:], b.Type)
	s.codeTile(packed[RowBytes(whole, b.BitWidth):], rest, p, b)
}
