package kernel

import (
	"math"
	"sync"
)

// encoder is the working memory of one call for an encoding other than Integer. Weights
// are fitted normalized: multiplied by a power of two which brings the largest magnitude
// of a super-group to 1 .. 2, so that sums of squares neither overflow nor vanish. Where
// groups stand alone, each is a super-group.
type encoder struct {
	block *Block
	*Description
	steps *encoderSteps
	scratch

	at              position // of the super-group
	n               int      // its weights
	normal, inverse float32  // the power of two, and its reciprocal
	// tile is the normalized weights of the super-group, or a part of a longer one.
	tile     [tileSize]float32
	groups   [superSize / 16]group
	searched [superSize / 16]searchedMinimum
	// Trials of the group at hand, and their errors.
	trials trials
	errors lanes
	// Of the super-group, as they are stored.
	superScale, superMinimum float32
}

// group is what is known of one: the ends of its weights, and what decodes it, all
// normalized.
type group struct{ lo, hi, scale, minimum float32 }

// encoders are used again: clearing one costs as much as a small layer.
var encoders = sync.Pool{New: func() any { return new(encoder) }}

// quantizeEncoded is quantize for all encodings but Integer.
func quantizeEncoded(b *Block, steps *encoderSteps) Fault {
	e := encoders.Get().(*encoder)
	defer encoders.Put(e)
	e.block, e.Description, e.steps = b, b.Encoding.Describe(), steps
	e.lanes, e.stop = laneSums{}, b.Stop
	step := max(e.SuperSize, b.GroupSize)
	for row := range b.Rows {
		e.at = b.layout().row(row)
		for left := b.Columns; left > 0 && !b.stopped(); left -= step {
			e.n = min(step, left)
			if fault := e.quantizeSuperGroup(); fault.Kind != NoFault {
				fault.Index += e.at.weight
				return fault
			}
			e.at = e.at.after(e.n, e.groupCount(), b.BitWidth)
		}
	}
	e.storeSums(b)
	return Fault{}
}

// quantizeSuperGroup takes a super-group through all stages: the ranges of groups, their
// parameters, their codes.
func (e *encoder) quantizeSuperGroup() Fault {
	if fault := e.load(); fault.Kind != NoFault {
		return fault
	}
	if !e.fit() {
		return Fault{Kind: ScaleRange, Value: e.superScale}
	}
	e.store()
	for i := range e.groupCount() {
		e.codeGroup(i)
	}
	return Fault{}
}

func (e *encoder) groupCount() int { return Groups(e.n, e.block.GroupSize) }

// span is where a group is within the super-group.
func (e *encoder) span(i int) (first, end int) {
	first = i * e.block.GroupSize
	return first, min(first+e.block.GroupSize, e.n)
}

// weights are those of the super-group from first to end, as they lie in memory.
func (e *encoder) weights(first, end int) []byte {
	size := e.block.Type.Size()
	return e.block.Weights[(e.at.weight+first)*size : (e.at.weight+end)*size]
}

// load finds the ranges of all groups, and the power of two.
func (e *encoder) load() Fault {
	largest := float32(0)
	for i := range e.groupCount() {
		first, end := e.span(i)
		lo, hi, fault := e.steps.rangeOf(&e.scratch, e.weights(first, end), e.block.Type)
		if fault.Kind != NoFault {
			fault.Index += first
			return fault
		}
		e.groups[i] = group{lo: lo, hi: hi}
		largest = max(largest, -lo, hi)
	}
	exponent := max(int(math.Float32bits(largest)>>23)-127, -126)
	e.normal, e.inverse = float32(math.Ldexp(1, -exponent)), float32(math.Ldexp(1, exponent))
	for i := range e.groupCount() {
		e.groups[i].lo *= e.normal
		e.groups[i].hi *= e.normal
	}
	if e.n <= tileSize {
		e.loadTile(0)
	}
	return Fault{}
}

// loadTile makes the tile that begins with a weight of the super-group.
func (e *encoder) loadTile(first int) {
	n := min(tileSize, e.n-first)
	e.steps.normalize(e.tile[:n], e.weights(first, first+n), e.block.Type, e.normal)
}

// part gives the weights of a group from first on, or as many as a tile holds, and their
// importance. Those of a longer super-group are valid until the next call.
func (e *encoder) part(first, end int) (weights, importance []float32) {
	n := end - first
	if e.n <= tileSize {
		weights = e.tile[first:end]
	} else {
		n = min(n, tileSize)
		e.loadTile(first)
		weights = e.tile[:n]
	}
	return weights, e.block.importance(e.at.weight+first, n)
}

// store writes all that decodes the super-group but its codes.
func (e *encoder) store() {
	b := e.block
	for i, g := range e.groups[:e.groupCount()] {
		zeroPoint := e.ZeroPoint
		if e.Minimums {
			zeroPoint = 0
			if g.scale != 0 {
				zeroPoint = g.minimum / g.scale
			}
		}
		b.Scales[e.at.group+i] = g.scale * e.inverse
		if b.ZeroPoints != nil {
			b.ZeroPoints[e.at.group+i] = zeroPoint
		}
	}
	if e.SuperSize > 0 {
		at := e.at.weight/b.Columns*e.SuperScales(b.Columns) + e.at.weight%b.Columns/e.SuperSize
		b.SuperScales[at] = e.superScale
		if e.Minimums {
			b.SuperMinimums[at] = e.superMinimum
		}
	}
}

// codeGroup writes the codes of a group.
func (e *encoder) codeGroup(i int) {
	b, g := e.block, e.groups[i]
	at := e.at.after(i*b.GroupSize, i, b.BitWidth)
	inverse, offset := coder(g.scale, g.minimum)
	start, end := e.span(i)
	for first := start; first < end && !b.stopped(); {
		weights, _ := e.part(first, end)
		codes := e.codes[:len(weights)]
		e.steps.code(codes, e.grid, weights, inverse, offset)
		e.steps.pack(b.Packed[at.packed+RowBytes(first-start, b.BitWidth):][:RowBytes(len(codes), b.BitWidth)], codes, b.BitWidth)
		if b.Sums != nil {
			e.addSums(at, first-start, codes)
		}
		first += len(weights)
	}
}

// addSums counts the errors of weights of a group.
func (e *encoder) addSums(at position, first int, codes []uint8) {
	b := e.block
	weights, decoded := e.scratch.weights[:len(codes)], e.decoded[:len(codes)]
	begin, size := (at.weight+first)*b.Type.Size(), len(codes)*b.Type.Size()
	e.steps.normalize(weights, b.Weights[begin:][:size], b.Type, 1)
	e.steps.decode(decoded, codes, e.Levels, b.Scales[at.group], b.zeroPoint(at.group))
	e.steps.addSums(&e.lanes, weights, decoded)
}
