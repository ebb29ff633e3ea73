package kernel

// Scalar is the reference.
var Scalar = Kernel{
	Name: "scalar", Quantize: quantizeScalar, Dequantize: dequantizeScalar, Range: rangeScalar, Code: codeScalar,
	TrialErrors: func(b *Block) TrialErrors { return trialErrorsOf(b, scalarSteps) },
	steps:       scalarSteps,
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
	// underflows counts the groups whose scale, as it is stored, is rounded to 0.
	underflows int
	stop       func() bool // of the block
}

func quantizeScalar(b *Block) Fault {
	if b.Encoding != Integer {
		return quantizeEncoded(b, scalarSteps)
	}
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
	s.finish(b)
	return Fault{}
}

// quantizeGroup takes a group of n weights through all stages.
func (s *scratch) quantizeGroup(b *Block, at position, n int) Fault {
	size := b.Type.Size()
	weights, packed := b.Weights[at.weight*size:][:n*size], b.Packed[at.packed:][:RowBytes(n, b.BitWidth)]
	lo, hi, fault := s.rangeOf(weights, b.Type)
	var p Parameters
	if fault.Kind == NoFault {
		p, fault = s.parameters(weights, b.importance(at.weight, n), lo, hi, b)
	}
	if fault.Kind != NoFault {
		fault.Index += at.weight
		return fault
	}
	s.count(p)
	s.codeGroup(packed, weights, p, b)
	b.Scales[at.group], b.ZeroPoints[at.group] = p.Scale, p.ZeroPoint
	return Fault{}
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

// count takes note of a group's parameters.
func (s *scratch) count(p Parameters) {
	if p.underflow {
		s.underflows++
	}
}

// finish stores what a block's groups come to.
func (s *scratch) finish(b *Block) {
	b.Underflows = s.underflows
	s.storeSums(b)
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
