package kernel

import (
	"math"
	"slices"
	"sync"
)

// encoder is the working memory of one call for an encoding other than Integer. It takes
// some groups of a row together: those of some super-groups, or as many groups as are about as
// long, or a single longer one. Weights are fitted normalized: multiplied by a power of two which
// brings the largest magnitude of a group, or of a super-group, to 1 .. 2, so that sums of
// squares neither overflow nor vanish.
type encoder struct {
	found [maxSupers]groupLanes // first, as that aligns them
	block *Block
	*Description
	steps *encoderSteps
	scratch

	at     position // of the first group
	n      int      // weights
	groups int
	// tiles are the normalized weights, or a part of those of a group that is longer than a tile.
	tiles [weightsTogether]float32
	codes [weightsTogether]uint8
	// Of each group: the powers of two and their reciprocals, then, normalized, the ends of
	// its weights and what decodes it.
	normal, inverse [maxTogether]float32
	lo, hi          [maxTogether]float32
	scale, minimum  [maxTogether]float32
	// What finds their codes.
	coderInverse, coderOffset [maxTogether]float32
	supers                    [maxSupers]superGroup
	// superScale is the scale that was wanted where it is beyond what it is stored as.
	superScale float32
	// Of groups without a super-group: whether they search, the trials, and their errors.
	searches [maxTogether]bool
	trials   [maxTogether]trials
	errors   [maxTogether]lanes
	// Of the layer, if it has a super-scale.
	ofLayer layerLevels
}

// maxTogether is how many groups are taken together at most, no fewer than a super-group has.
const maxTogether = 128

// weightsTogether is how many weights they have at most: those of two tiles.
const weightsTogether = 2 * tileSize

// maxSupers is how many super-groups they are at most, which have no fewer weights than this.
// A processor begins with the next one where it waits for one.
const maxSupers = weightsTogether / 256

// encoders are used again: clearing one costs as much as a small layer.
var encoders = sync.Pool{New: func() any { return new(encoder) }}

// quantizeEncoded is quantize for all encodings but Integer.
func quantizeEncoded(b *Block, steps *encoderSteps) Fault {
	e := encoders.Get().(*encoder)
	defer encoders.Put(e)
	e.begin(b, steps)
	together := b.GroupSize
	if together <= tileSize {
		together *= min(weightsTogether/together, maxTogether)
	}
	for row := range b.Rows {
		e.at = b.layout().row(row)
		for left := b.Columns; left > 0 && !b.stopped(); left -= together {
			e.n = min(together, left)
			e.groups = Groups(e.n, b.GroupSize)
			if fault := e.quantizeGroups(); fault.Kind != NoFault {
				fault.Index += e.at.weight
				return fault
			}
			e.at = e.at.after(e.n, e.groups, b.BitWidth)
		}
	}
	e.finish(b)
	return Fault{}
}

// begin takes a block.
func (e *encoder) begin(b *Block, steps *encoderSteps) {
	e.block, e.Description, e.steps = b, b.Encoding.Describe(), steps
	e.lanes, e.underflows, e.stop = laneSums{}, 0, b.Stop
	if e.LayerScale {
		e.ofLayer.take(b.LayerScale, e.grid.high)
	}
}

// quantizeGroups takes groups through all stages: their ranges, their parameters, their
// codes.
func (e *encoder) quantizeGroups() Fault {
	if e.block.Shared != nil {
		e.takeShared()
		e.code()
		return Fault{}
	}
	if fault := e.findRanges(); fault.Kind != NoFault {
		return fault
	}
	e.normalizeEnds()
	if e.block.Method != RoundToNearest {
		e.fillTiles()
	}
	if failed := e.fit(); failed >= 0 {
		first, _ := e.span(failed)
		return Fault{Kind: ScaleRange, Index: first, Value: e.superScale}
	}
	e.store()
	e.code()
	return Fault{}
}

// span is where a group is among the weights.
func (e *encoder) span(i int) (first, end int) {
	first = i * e.block.GroupSize
	return first, min(first+e.block.GroupSize, e.n)
}

// weights are those from first to end, as they lie in memory.
func (e *encoder) weights(first, end int) []byte {
	size := e.block.Type.Size()
	return e.block.Weights[(e.at.weight+first)*size : (e.at.weight+end)*size]
}

// isLong tells whether it is a group longer than a tile.
func (e *encoder) isLong() bool { return e.groups == 1 && e.n > tileSize }

// even tells whether all groups are as long, and of a multiple of 8 weights.
func (e *encoder) even() bool { return e.n == e.groups*e.block.GroupSize && e.block.GroupSize%8 == 0 }

// findRanges finds the ends of all groups.
func (e *encoder) findRanges() Fault {
	if e.even() && e.steps.ranges(e.weights(0, e.n), e.block.Type, e.lo[:e.groups], e.hi[:e.groups]) {
		return Fault{}
	}
	for i := range e.groups {
		first, end := e.span(i)
		lo, hi, fault := e.rangeOf(e.weights(first, end), e.block.Type)
		if fault.Kind != NoFault {
			fault.Index += first
			return fault
		}
		e.lo[i], e.hi[i] = lo, hi
	}
	return Fault{}
}

// normalizeEnds finds the powers of two: of each group, or of a super-group.
func (e *encoder) normalizeEnds() {
	lo, hi, normal, inverse := e.lo[:e.groups], e.hi[:e.groups], e.normal[:e.groups], e.inverse[:e.groups]
	if e.SuperSize == 0 {
		e.steps.normalizeEnds(lo, hi, normal, inverse)
		return
	}
	for perSuper := e.SuperSize / e.GroupSize; len(lo) > 0; {
		n := min(perSuper, len(lo))
		normalizeTogether(lo[:n], hi[:n], normal[:n], inverse[:n])
		lo, hi, normal, inverse = lo[n:], hi[n:], normal[n:], inverse[n:]
	}
}

// normalizeTogether gives all groups of a super-group the same power of two.
func normalizeTogether(lo, hi, normal, inverse []float32) {
	least, most := float32(0), float32(0)
	for i := range lo {
		least, most = min(least, lo[i]), max(most, hi[i])
	}
	ends := [2]float32{least, most}
	normalizeEnds(ends[:1], ends[1:], normal[:1], inverse[:1])
	for i := range lo {
		normal[i], inverse[i] = normal[0], inverse[0]
		lo[i] *= normal[0]
		hi[i] *= normal[0]
	}
}

// normalizeEnds multiplies the ends of groups by powers of two, which it gives with their
// reciprocals.
func normalizeEnds(lo, hi, normal, inverse []float32) {
	for i := range lo {
		exponent := max(int(math.Float32bits(max(-lo[i], hi[i], 0))>>23)-127, -126)
		normal[i], inverse[i] = powerOf2(-exponent), powerOf2(exponent)
		lo[i] *= normal[i]
		hi[i] *= normal[i]
	}
}

// fillTiles normalizes the weights, unless a group is longer than a tile.
func (e *encoder) fillTiles() {
	switch {
	case e.isLong():
	case e.even():
		e.steps.normalize(e.tiles[:e.n], e.weights(0, e.n), e.block.Type, e.normal[:e.groups])
	default:
		for i := range e.groups {
			first, end := e.span(i)
			e.steps.normalize(e.tiles[first:end], e.weights(first, end), e.block.Type, e.normal[i:i+1])
		}
	}
}

// powerOf2 is 2^exponent, of a float32; -127 gives a subnormal one.
func powerOf2(exponent int) float32 {
	if exponent <= -127 {
		return math.Float32frombits(1 << (exponent + 149))
	}
	return math.Float32frombits(uint32(exponent+127) << 23)
}

// part gives the weights of a group from first on, or as many as a tile holds, and their
// importance. Those of a longer group are valid until the next call.
func (e *encoder) part(first, end int) (weights, importance []float32) {
	n := end - first
	if !e.isLong() {
		weights = e.tiles[first:end]
	} else {
		n = min(n, tileSize)
		weights = e.tiles[:n]
		e.steps.normalize(weights, e.weights(first, first+n), e.block.Type, e.normal[:1])
	}
	return weights, e.block.importance(e.at.weight+first, n)
}

// store writes all that decodes the groups but their codes.
func (e *encoder) store() {
	b := e.block
	scales := b.Scales[e.at.group:][:e.groups]
	scale, inverse := e.scale[:len(scales)], e.inverse[:len(scales)]
	for i := range scales {
		scales[i] = scale[i] * inverse[i]
	}
	e.storeZeroPoints()
	if e.SuperSize == 0 {
		return
	}
	at := e.at.weight/b.Columns*e.SuperScales(b.Columns) + e.at.weight%b.Columns/e.SuperSize
	for i := range e.superGroups() {
		b.SuperScales[at+i] = e.supers[i].stored.scale
		if e.Minimums {
			b.SuperMinimums[at+i] = e.supers[i].stored.minimum
		}
	}
}

// storeZeroPoints writes those of the groups, if they are stored.
func (e *encoder) storeZeroPoints() {
	if e.block.ZeroPoints == nil {
		return
	}
	for i := range e.groups {
		zeroPoint := e.ZeroPoint
		if e.Minimums && e.scale[i] != 0 {
			zeroPoint = e.minimum[i] / e.scale[i]
		}
		e.block.ZeroPoints[e.at.group+i] = zeroPoint
	}
}

// code writes the codes of all groups.
func (e *encoder) code() {
	b := e.block
	packed := b.Packed[e.at.packed:][:RowBytes(e.n, b.BitWidth)]
	e.steps.makeCoders(e.scale[:], e.minimum[:], e.coderInverse[:e.groups], e.coderOffset[:e.groups])
	if e.isLong() {
		e.codeLong(packed)
		return
	}
	codes := e.codes[:e.n]
	if e.even() {
		e.encode(0, e.groups, 0, codes)
	} else {
		for i := range e.groups {
			first, end := e.span(i)
			e.encode(i, 1, first, codes[first:end])
		}
	}
	e.steps.pack(packed, codes, b.BitWidth)
	if b.Sums == nil {
		return
	}
	if e.even() {
		for i := 0; i < e.groups; i += tileSize / b.GroupSize {
			n := min(tileSize/b.GroupSize, e.groups-i)
			first, _ := e.span(i)
			e.addSums(i, n, first, codes[first:first+n*b.GroupSize])
		}
		return
	}
	for i := range e.groups {
		first, end := e.span(i)
		e.addSums(i, 1, first, codes[first:end])
	}
}

// codeLong writes the codes of a group longer than a tile.
func (e *encoder) codeLong(packed []byte) {
	b := e.block
	for first := 0; first < e.n && !b.stopped(); {
		codes := e.codes[:min(tileSize, e.n-first)]
		e.encode(0, 1, first, codes)
		e.steps.pack(packed[RowBytes(first, b.BitWidth):][:RowBytes(len(codes), b.BitWidth)], codes, b.BitWidth)
		if b.Sums != nil {
			e.addSums(0, 1, first, codes)
		}
		first += len(codes)
	}
}

// encode finds the codes of the weights from first on, of so many groups from i on. Nothing needs
// the tiles any more.
func (e *encoder) encode(i, groups, first int, codes []uint8) {
	weights := e.weights(first, first+len(codes))
	e.steps.encode(codes, e.tiles[:len(codes)], e.grid, weights, e.block.Type, e.normal[i:i+groups], e.coderInverse[i:i+groups], e.coderOffset[i:i+groups])
}

// unscaled are the factors of weights that stay as they are.
var unscaled = slices.Repeat([]float32{1}, maxTogether)

// addSums counts the errors of the weights from first on, of so many groups from i on.
func (e *encoder) addSums(i, groups, first int, codes []uint8) {
	b := e.block
	weights, decoded := e.scratch.weights[:len(codes)], e.decoded[:len(codes)]
	e.steps.normalize(weights, e.weights(first, first+len(codes)), b.Type, unscaled[:1])
	zeroPoints := noZeroPoints[:groups]
	if b.ZeroPoints != nil {
		zeroPoints = b.ZeroPoints[e.at.group+i:][:groups]
	}
	e.steps.decode(decoded, codes, e.Levels, b.Scales[e.at.group+i:][:groups], zeroPoints)
	e.steps.addSums(&e.lanes, weights, decoded)
}
