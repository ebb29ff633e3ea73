package kernel

import (
	"sync"
	"unsafe"
)

// searchGroups is how many groups are searched at a time, each in a lane of its
// own.
const searchGroups = 16

// searchLanes are the parameters and sums of all lanes. Assembly relies on
// their order.
type searchLanes struct {
	scale, inverse, zeroPoint                          [searchGroups]float32 // that are looked at
	code, codeCode, rest, restCode, restRest, weight   [searchGroups]float32 // stepSums
	base                                               [searchGroups]float32 // inverse of round-to-nearest
	leastError, bestScale, bestInverse, bestZeroPoint  [searchGroups]float32
	nextPromise, nextScale, nextInverse, nextZeroPoint [searchGroups]float32
	threshold                                          [searchGroups]float32 // of hqq
}

// transposers make tiles, by ElementType.
var transposers = [3]func(groups **byte, offset, n int, tile *float32){
	transposeFloat32, transposeFloat16, transposeBFloat16,
}

// refiners are refine, by ZeroPoint and ScaleDtype.
var refiners = [3][3]func(lanes *float32, maxCode float32){
	IntegerZero:   {refineIntegerFloat32, refineIntegerFloat16, refineIntegerBFloat16},
	FloatZero:     {refineFloatFloat32, refineFloatFloat16, refineFloatBFloat16},
	SymmetricZero: {refineSymmetricFloat32, refineSymmetricFloat16, refineSymmetricBFloat16},
}

// search is the working memory of one call: a batch of groups of n weights.
type search struct {
	lanes      searchLanes
	count, n   int
	at         [searchGroups]position
	weights    [searchGroups]*byte
	importance [searchGroups]*byte // of float32; nil without
	lo, hi     [searchGroups]float32
	cutLo      [searchGroups]float32
	cutHi      [searchGroups]float32
	searched   [searchGroups]bool
	rtn        [searchGroups]Parameters
	reference  map[int]Parameters // of groups that only the reference can code; nil if there are none

	tile           [tileSize][searchGroups]float32
	importanceTile [tileSize][searchGroups]float32
}

var searches = sync.Pool{New: func() any { return new(search) }}

// quantizeSearched is quantize for methods that search: all groups are fitted,
// then coded.
func (v *vectorSet) quantizeSearched(b Block) Fault {
	if b.Method == HalfQuadratic {
		b.Importance = nil
	}
	s := takeScratch()
	defer s.release()
	s.stop = b.Stop
	f := searches.Get().(*search)
	defer func() {
		// No view of a caller's memory may stay behind.
		f.weights, f.importance, f.reference = [searchGroups]*byte{}, [searchGroups]*byte{}, nil
		searches.Put(f)
	}()
	if !v.searchBlock(s, f, &b) {
		b.Method = RoundToNearest // finds the same first fault
		return v.quantize(&b)
	}
	l := b.layout().joined()
	for row := range l.rows {
		v.codeRow(s, f, &b, l.row(row), l.columns)
	}
	s.storeSums(&b)
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

// searchGroups searches groups in batches.
func (v *vectorSet) searchGroups(s *vectorScratch, f *search, b *Block, c *cursor) (ok bool) {
	f.n = c.n
	for at, more := c.next(); more; {
		some := false
		for f.count = 0; more && f.count < searchGroups; f.count++ {
			if !v.takeGroup(s, f, b, at, f.count) {
				return false
			}
			some = some || f.searched[f.count]
			at, more = c.next()
		}
		if some {
			f.fillLanes(b)
			v.search(f, b)
		}
		for k := range f.count {
			f.store(b, k)
		}
	}
	return true
}

// takeGroup puts a group into a lane, with its round-to-nearest parameters.
func (v *vectorSet) takeGroup(s *vectorScratch, f *search, b *Block, at position, k int) (ok bool) {
	size := b.Type.Size()
	weights := b.Weights[at.weight*size:][:f.n*size]
	f.at[k], f.weights[k] = at, &weights[0]
	if b.Importance != nil {
		f.importance[k] = (*byte)(unsafe.Pointer(&b.importance(at.weight, f.n)[0]))
	}
	lo, hi, fault := v.rangeIn(s, weights, b.Type)
	if fault.Kind != NoFault {
		return false
	}
	p, ok := fit(lo, hi, b.Format)
	if p.extreme {
		f.leave(at.group, p)
	}
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
	p, group := f.rtn[k], f.at[k].group
	if f.searched[k] {
		p.Scale, p.ZeroPoint = f.lanes.bestScale[k], f.lanes.bestZeroPoint[k]
		p.inverse = 1 / p.Scale
		if !within(f.lo[k], f.hi[k], p) {
			f.leave(group, p)
		}
	}
	b.Scales[group], b.ZeroPoints[group] = p.Scale, p.ZeroPoint
}

// within tells whether weights of a range become integers of 32 bits before they
// are clipped, as code needs it. Round-to-nearest always gives such; a search
// may leave out weights of no importance that are very far from all others.
func within(lo, hi float32, p Parameters) bool {
	return max(abs(lo), abs(hi))*abs(p.inverse)+abs(p.ZeroPoint) < 1<<30
}

// fillLanes gives idle lanes something to do, and loads groups that fit into one
// tile.
func (f *search) fillLanes(b *Block) {
	for k := range searchGroups {
		if k >= f.count { // idle lanes do what the first one does
			f.weights[k], f.importance[k] = f.weights[0], f.importance[0]
		}
		if k >= f.count || !f.searched[k] {
			f.lo[k], f.hi[k] = span(-1, 1, b.ZeroPoint)
			f.lanes.base[k] = 1
		} else {
			f.lanes.base[k] = f.rtn[k].inverse
		}
		// for groups of which no start leads anywhere
		p := f.rtn[k]
		f.lanes.nextScale[k], f.lanes.nextInverse[k], f.lanes.nextZeroPoint[k] = p.Scale, p.inverse, p.ZeroPoint
		f.lanes.leastError[k] = infinity
		f.lanes.nextPromise[k] = infinity
	}
	if f.n <= tileSize {
		f.loadTile(b, 0, f.n)
	}
}

// search is the function of that name of the reference, for all lanes.
func (v *vectorSet) search(f *search, b *Block) {
	if f.count == 1 {
		v.searchAlone(f, b)
	} else {
		for start := range starts {
			f.begin(start, b)
			v.look(f, b)
			if start == 0 {
				for k := range searchGroups {
					f.lanes.leastError[k] = f.toBeat(k, b)
				}
			}
		}
	}
	for range refinements {
		l := &f.lanes
		l.scale, l.inverse, l.zeroPoint = l.nextScale, l.nextInverse, l.nextZeroPoint
		for k := range searchGroups {
			l.nextPromise[k] = infinity
		}
		v.look(f, b)
	}
}

func (f *search) toBeat(k int, b *Block) float32 {
	return toBeat(f.lanes.leastError[k], f.lanes.weight[k], f.rtn[k], float32(b.MaxCode()))
}

// searchAlone looks at all starts of the only group at once, one a lane, and
// brings together in the first lane what they find. Long rows are searched so.
func (v *vectorSet) searchAlone(f *search, b *Block) {
	l := &f.lanes
	for start := range starts {
		p := fitStart(start, f.lo[0], f.hi[0], f.rtn[0], b.Format)
		l.scale[start], l.inverse[start], l.zeroPoint[start] = p.Scale, p.inverse, p.ZeroPoint
		l.base[start] = l.base[0]
	}
	v.look(f, b)
	l.leastError[0] = f.toBeat(0, b)
	for k := 1; k < starts; k++ {
		if l.leastError[k] < l.leastError[0] {
			l.leastError[0], l.bestScale[0], l.bestZeroPoint[0] = l.leastError[k], l.bestScale[k], l.bestZeroPoint[k]
		}
		if l.nextPromise[k] < l.nextPromise[0] {
			l.nextPromise[0], l.nextScale[0] = l.nextPromise[k], l.nextScale[k]
			l.nextInverse[0], l.nextZeroPoint[0] = l.nextInverse[k], l.nextZeroPoint[k]
		}
	}
}

// begin makes the parameters of a start.
func (f *search) begin(start int, b *Block) {
	c := cutOf(start, b.Format)
	for k := range searchGroups {
		f.cutLo[k], f.cutHi[k] = c.of(f.lo[k], f.hi[k], b.ZeroPoint)
	}
	l := &f.lanes
	if fitters[b.ZeroPoint][b.ScaleDtype](&f.cutLo[0], &f.cutHi[0], searchGroups, float32(b.MaxCode()), half(b.Format), &l.scale[0], &l.inverse[0], &l.zeroPoint[0]) {
		return
	}
	for k := range searchGroups {
		p := fitStart(start, f.lo[k], f.hi[k], f.rtn[k], b.Format)
		l.scale[k], l.inverse[k], l.zeroPoint[k] = p.Scale, p.inverse, p.ZeroPoint
	}
}

// look sums up all weights with the current parameters, and refines these.
func (v *vectorSet) look(f *search, b *Block) {
	l, maxCode := &f.lanes, float32(b.MaxCode())
	clear(l.code[:])
	clear(l.codeCode[:])
	clear(l.rest[:])
	clear(l.restCode[:])
	clear(l.restRest[:])
	clear(l.weight[:])
	if b.Importance == nil {
		for k := range searchGroups {
			l.weight[k] = float32(f.n)
		}
	}
	f.tiles(b, func(n int) {
		if b.Importance == nil {
			v.stepSums(&l.scale[0], &f.tile[0][0], n, maxCode)
		} else {
			v.stepSumsWeighted(&l.scale[0], &f.tile[0][0], &f.importanceTile[0][0], n, maxCode)
		}
	})
	refiners[b.ZeroPoint][b.ScaleDtype](&l.scale[0], maxCode)
}

// tiles calls visit for each tile of n rows.
func (f *search) tiles(b *Block, visit func(n int)) {
	for first := 0; first < f.n && !b.stopped(); first += tileSize {
		n := min(tileSize, f.n-first)
		if f.n > tileSize {
			f.loadTile(b, first, n)
		}
		visit(n)
	}
}

// loadTile fills the tiles with n weights, and their importance.
func (f *search) loadTile(b *Block, first, n int) {
	fill(&f.tile, &f.weights, b.Type, first, n)
	if b.Importance != nil {
		fill(&f.importanceTile, &f.importance, Float32, first, n)
	}
}

// fill transposes all but the last elements, fewer than 8, with vectors, unless
// they are float64.
func fill(tile *[tileSize][searchGroups]float32, groups *[searchGroups]*byte, t ElementType, first, n int) {
	size := t.Size()
	whole := 0
	if t != Float64 {
		whole = n &^ 7
	}
	if whole > 0 {
		transposers[t](&groups[0], first*size, whole, &tile[0][0])
	}
	var rest [8]float32
	for i := whole; i < n; i += len(rest) {
		some := rest[:min(len(rest), n-i)]
		for k, group := range groups {
			load(some, unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(group), (first+i)*size)), len(some)*size), t)
			for j, w := range some {
				tile[i+j][k] = w
			}
		}
	}
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
