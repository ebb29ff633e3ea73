package kernel

import "sync"

const (
	// searchGroups is how many groups a tile has, each in a lane of its own.
	searchGroups = 16
	// Tiles of small groups are searched together, so that a processor begins with the next one
	// where it waits for one: searchTiles at most, of searchRows rows in all, which stay in L1.
	searchTiles = 8
	searchRows  = 128
	mostLanes   = searchTiles * searchGroups
)

// ofLanes are numbers of all lanes.
type ofLanes [mostLanes]float32

// searchLanes are the parameters and sums of all lanes. Assembly relies on
// their order.
type searchLanes struct {
	scale, inverse, zeroPoint                          ofLanes // that are looked at
	code, codeCode, rest, restCode, restRest, weight   ofLanes // stepSums
	base                                               ofLanes // inverse of round-to-nearest
	leastError, bestScale, bestInverse, bestZeroPoint  ofLanes
	nextPromise, nextScale, nextInverse, nextZeroPoint ofLanes
	threshold                                          ofLanes // of hqq
}

// search is the working memory of one call: a batch of groups of n weights, which fill
// so many tiles, the last one perhaps not.
type search struct {
	lanes           searchLanes
	count, n, tiles int
	at              [mostLanes]position
	weights         [mostLanes]*byte
	importance      [mostLanes]*byte // of float32; nil without
	lo, hi          ofLanes
	cutLo, cutHi    [starts]ofLanes // see cut
	searched        [mostLanes]bool
	rtn             [mostLanes]Parameters
	reference       map[int]Parameters // of groups that only the reference can code; nil if there are none

	// One tile behind the other.
	tile           [tileSize][searchGroups]float32
	importanceTile [tileSize][searchGroups]float32
}

var searches = sync.Pool{New: func() any { return new(search) }}

// quantizeSearched is quantize for methods that search: all groups are fitted,
// then coded.
func (v *vectorSet) quantizeSearched(given *Block) Fault {
	own := *given
	b := &own
	if b.Method == HalfQuadratic {
		b.Importance = nil
	}
	s := takeScratch()
	defer v.release(s)
	s.stop = b.Stop
	f := searches.Get().(*search)
	defer func() {
		// No view of a caller's memory may stay behind.
		f.weights, f.importance, f.reference = [mostLanes]*byte{}, [mostLanes]*byte{}, nil
		searches.Put(f)
	}()
	if !v.searchBlock(s, f, b) {
		b.Method = RoundToNearest // finds the same first fault
		return v.quantize(b)
	}
	l := b.layout().joined()
	for row := range l.rows {
		v.codeRow(s, f, b, l.row(row), l.columns)
	}
	s.finish(b)
	given.Underflows = b.Underflows
	return Fault{}
}

// searchBlock writes scale and zero-point of all groups. It gives up at a group
// that has a fault.
func (v *vectorSet) searchBlock(s *vectorScratch, f *search, b *Block) (ok bool) {
	l := b.layout().joined()
	whole := l.columns / l.groupSize
	for _, c := range []cursor{
		{layout: l, n: l.groupSize, perRow: whole},
		{layout: l, n: l.columns % l.groupSize, perRow: 1, first: whole * l.groupSize},
	} {
		find := v.searchGroups
		if b.Method == HalfQuadratic {
			find = v.hqqGroups
		}
		if c.n > 0 && c.perRow > 0 && !find(s, f, b, &c) {
			return false
		}
	}
	return true
}

// cursor goes over groups of n weights: so many a row, from a column on.
type cursor struct {
	layout
	first, n, perRow int
	row, group       int
	at               position
}

// next gives the begin of the next group.
func (c *cursor) next() (at position, ok bool) {
	if c.row == c.rows {
		return at, false
	}
	if c.group == 0 {
		c.at = c.layout.row(c.row).after(c.first, c.first/c.groupSize, c.bitWidth)
	}
	at = c.at
	c.at = at.after(c.n, 1, c.bitWidth)
	if c.group++; c.group == c.perRow {
		c.row, c.group = c.row+1, 0
	}
	return at, true
}

// place puts a group into a lane.
func (f *search) place(b *Block, at position, k int) {
	f.at[k], f.weights[k] = at, &b.Weights[at.weight*b.Type.Size()]
	if b.Importance != nil {
		f.importance[k] = bytesOf(b.importance(at.weight, f.n))
	}
}

// takeGroup puts a group into a lane, with its round-to-nearest parameters.
func (v *vectorSet) takeGroup(s *vectorScratch, f *search, b *Block, at position, k int) (ok bool) {
	f.place(b, at, k)
	size := b.Type.Size()
	lo, hi, fault := v.rangeIn(s, b.Weights[at.weight*size:][:f.n*size], b.Type)
	return fault.Kind == NoFault && f.fitGroup(s, b, lo, hi, k)
}

// fitGroup gives a group whose weights span lo .. hi its round-to-nearest parameters.
func (f *search) fitGroup(s *vectorScratch, b *Block, lo, hi float32, k int) (ok bool) {
	p, ok := fit(lo, hi, b.Format)
	if p.extreme {
		f.leave(f.at[k].group, p)
	}
	s.count(p)
	f.rtn[k] = p
	f.searched[k] = searchable(lo, hi, p, b.Format)
	f.lo[k], f.hi[k] = span(lo, hi, b.ZeroPoint)
	return ok
}

// leave has the reference code a group.
func (f *search) leave(group int, p Parameters) {
	if f.reference == nil {
		f.reference = map[int]Parameters{}
	}
	f.reference[group] = p
}

// store writes what was found for a lane's group.
func (f *search) store(b *Block, k int) {
	group := f.at[k].group
	if !f.searched[k] {
		b.Scales[group], b.ZeroPoints[group] = f.rtn[k].Scale, f.rtn[k].ZeroPoint
		return
	}
	scale, zeroPoint := f.lanes.bestScale[k], f.lanes.bestZeroPoint[k]
	if !within(f.lo[k], f.hi[k], 1/scale, zeroPoint) {
		f.leave(group, Parameters{Scale: scale, inverse: 1 / scale, ZeroPoint: zeroPoint})
	}
	b.Scales[group], b.ZeroPoints[group] = scale, zeroPoint
}

// within tells whether weights of a range become integers of 32 bits before they
// are clipped, as code needs it. Round-to-nearest always gives such; a search
// may leave out weights of no importance that are very far from all others.
func within(lo, hi, inverse, zeroPoint float32) bool {
	largest := hi
	if -lo > hi {
		largest = -lo
	}
	return float32(largest*abs(inverse))+abs(zeroPoint) < 1<<30
}

// codeRow codes a row of so many columns with the scales and zero-points that
// the block has.
func (v *vectorSet) codeRow(s *vectorScratch, f *search, b *Block, at position, columns int) {
	size := b.Type.Size()
	for left := columns; left > 0; {
		n, groups := nextRun(b.GroupSize, left, b.Type)
		if f.reference != nil || b.Type == Float64 {
			n, groups = min(b.GroupSize, left), 1
		}
		weights, packed := b.Weights[at.weight*size:][:n*size], b.Packed[at.packed:][:RowBytes(n, b.BitWidth)]
		for k := range groups {
			s.scales[k], s.zeroPoints[k] = b.Scales[at.group+k], b.ZeroPoints[at.group+k]
			s.inverses[k] = 1 / s.scales[k]
		}
		p, known := f.reference[at.group]
		if !known {
			p = Parameters{Scale: s.scales[0], inverse: s.inverses[0], ZeroPoint: s.zeroPoints[0]}
		}
		switch {
		case known || b.Type == Float64:
			s.scratch.codeGroup(packed, weights, p, b)
		case isRun(n, groups, b.GroupSize, b.Type):
			v.codeRun(s, b, &weights[0], &packed[0], groups, b.GroupSize)
		default:
			v.codeGroup(s, b, weights, packed, p)
		}
		at = at.after(n, groups, b.BitWidth)
		left -= n
	}
}
