package kernel

// Parameters code and decode one group: q = rint(w*inverse + zeroPoint), and
// w = (q - zeroPoint) * scale.
type Parameters struct {
	Scale     float32
	ZeroPoint float32
	inverse   float32
	extreme   bool // outside the plain bounds: code with codeExtreme
	underflow bool // ScaleDtype rounds the group's scale to 0: see flat
}

// Underflows tells whether ScaleDtype rounds the group's scale to 0, so that all its
// weights decode to one value.
func (p Parameters) Underflows() bool { return p.underflow }

// Fit chooses the parameters of a group whose finite weights span lo .. hi.
func Fit(lo, hi float32, f Format) (Parameters, Fault) {
	p, ok := fit(lo, hi, f)
	if !ok {
		return p, Fault{Kind: ScaleRange, Value: p.Scale}
	}
	return p, Fault{}
}

// parameters chooses those of a group whose weights span lo .. hi.
func (s *scratch) parameters(weights []byte, importance []float32, lo, hi float32, b *Block) (Parameters, Fault) {
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
