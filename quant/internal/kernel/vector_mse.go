package kernel

import (
	"slices"
	"unsafe"
)

// searchGroups searches groups in batches.
func (v *vectorSet) searchGroups(s *vectorScratch, f *search, b *Block, c *cursor) (ok bool) {
	f.n = c.n
	most := searchGroups * max(1, min(searchTiles, searchRows/f.n))
	for at, more := c.next(); more; {
		for f.count = 0; more && f.count < most; f.count++ {
			f.place(b, at, f.count)
			at, more = c.next()
		}
		f.tiles = (f.count + searchGroups - 1) / searchGroups
		if !v.takeBatch(s, f, b) {
			return false
		}
		if slices.Contains(f.searched[:f.count], true) {
			v.fillLanes(f, b)
			v.search(f, b)
		}
		for k := range f.count {
			f.store(b, k)
		}
	}
	return true
}

// takeBatch finds the round-to-nearest parameters of the groups in all lanes.
func (v *vectorSet) takeBatch(s *vectorScratch, f *search, b *Block) (ok bool) {
	for first := 0; first < f.count; {
		groups := f.following(first)
		weights := b.Weights[f.at[first].weight*b.Type.Size():][:groups*f.n*b.Type.Size()]
		v.prefetch(uintptr(unsafe.Pointer(&weights[0]))+uintptr(len(weights)), min(len(weights), bytesAhead))
		if b.Type != Float64 && f.n%8 == 0 {
			if v.ranges[b.Type](&weights[0], groups, f.n, &f.lo[first], &f.hi[first], 0) {
				return false
			}
			first += groups
			continue
		}
		for range groups {
			lo, hi, fault := v.rangeIn(s, weights[:f.n*b.Type.Size()], b.Type)
			if fault.Kind != NoFault {
				return false
			}
			f.lo[first], f.hi[first] = lo, hi
			first, weights = first+1, weights[f.n*b.Type.Size():]
		}
	}
	for first := 0; first < f.count; first += searchGroups {
		if !v.fitTile(s, f, b, first, min(f.count, first+searchGroups)) {
			return false
		}
	}
	return true
}

// following is how many groups of the batch follow each other from one on.
func (f *search) following(first int) (groups int) {
	for groups = 1; first+groups < f.count && f.at[first+groups].weight == f.at[first].weight+groups*f.n; {
		groups++
	}
	return groups
}

// fitTile gives the groups of one tile, whose ranges are known, their round-to-nearest
// parameters.
func (v *vectorSet) fitTile(s *vectorScratch, f *search, b *Block, first, end int) (ok bool) {
	l := &f.lanes
	if !v.fit[b.ZeroPoint][b.ScaleDtype](&f.lo[first], &f.hi[first], end-first, float32(b.MaxCode()), half(b.Format), &l.scale[first], &l.inverse[first], &l.zeroPoint[first]) {
		for k := first; k < end; k++ {
			if !f.fitGroup(s, b, f.lo[k], f.hi[k], k) {
				return false
			}
		}
		return true
	}
	for k := first; k < end; k++ {
		f.rtn[k] = Parameters{Scale: l.scale[k], inverse: l.inverse[k], ZeroPoint: l.zeroPoint[k]}
		f.searched[k] = abs(l.zeroPoint[k]) <= maxOffset
		f.lo[k], f.hi[k] = span(f.lo[k], f.hi[k], b.ZeroPoint)
	}
	return true
}

// fillLanes gives idle lanes something to do, and loads groups that fit into one
// tile.
func (v *vectorSet) fillLanes(f *search, b *Block) {
	l := &f.lanes
	for k := range f.tiles * searchGroups {
		if k >= f.count { // idle lanes do what the first one does
			f.weights[k], f.importance[k] = f.weights[0], f.importance[0]
		}
		if k >= f.count || !f.searched[k] {
			f.lo[k], f.hi[k] = span(-1, 1, b.ZeroPoint)
			l.base[k] = 1
		} else {
			l.base[k] = f.rtn[k].inverse
		}
		// for groups of which no start leads anywhere
		p := &f.rtn[k]
		l.nextScale[k], l.nextInverse[k], l.nextZeroPoint[k] = p.Scale, p.inverse, p.ZeroPoint
		l.leastError[k], l.nextPromise[k] = infinity, infinity
	}
	if f.n <= tileSize {
		v.loadTiles(f, b, 0, f.n)
	}
}

// search is the function of that name of the reference, for all lanes.
func (v *vectorSet) search(f *search, b *Block) {
	l, lanes := &f.lanes, f.tiles*searchGroups
	v.weigh(f, b)
	if f.count == 1 {
		v.searchAlone(f, b)
	} else {
		f.cut(b.Format)
		for start := range starts {
			v.begin(f, start, b)
			v.look(f, b)
			if start == 0 {
				for k := range lanes {
					l.leastError[k] = f.toBeat(k, b)
				}
			}
		}
	}
	for range refinements {
		l.scale, l.inverse, l.zeroPoint = l.nextScale, l.nextInverse, l.nextZeroPoint
		for k := range lanes {
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
			l.leastError[0] = l.leastError[k]
			l.bestScale[0], l.bestInverse[0], l.bestZeroPoint[0] = l.bestScale[k], l.bestInverse[k], l.bestZeroPoint[k]
		}
		if l.nextPromise[k] < l.nextPromise[0] {
			l.nextPromise[0], l.nextScale[0] = l.nextPromise[k], l.nextScale[k]
			l.nextInverse[0], l.nextZeroPoint[0] = l.nextInverse[k], l.nextZeroPoint[k]
		}
	}
}

// cut makes the ranges of all starts. Vectors that read what was written just before, number by
// number, have to wait for it. There are as many lower ends as upper ones, of which endsOf tells.
func (f *search) cut(format Format) {
	for start := 0; start < starts; start++ {
		lower, upper := endsOf(start, format)
		if lower != upper {
			continue
		}
		c, lo, hi := cutOf(start, format), &f.cutLo[lower], &f.cutHi[upper]
		for k := range f.tiles * searchGroups {
			lo[k], hi[k] = c.of(f.lo[k], f.hi[k], format.ZeroPoint)
		}
	}
}

// endsOf is where cut puts the ends of a start: each is that of several.
func endsOf(start int, format Format) (lower, upper int) {
	if format.ZeroPoint == SymmetricZero {
		return start, start
	}
	return start / cuts, start % cuts
}

// begin makes the parameters of a start.
func (v *vectorSet) begin(f *search, start int, b *Block) {
	l := &f.lanes
	lower, upper := endsOf(start, b.Format)
	lo, hi := &f.cutLo[lower], &f.cutHi[upper]
	plain := func(first, n int) bool {
		return v.fit[b.ZeroPoint][b.ScaleDtype](&lo[first], &hi[first], n, float32(b.MaxCode()), half(b.Format), &l.scale[first], &l.inverse[first], &l.zeroPoint[first])
	}
	if plain(0, f.tiles*searchGroups) {
		return
	}
	for first := 0; first < f.tiles*searchGroups; first += searchGroups {
		if plain(first, searchGroups) {
			continue
		}
		for k := first; k < first+searchGroups; k++ {
			p := fitStart(start, f.lo[k], f.hi[k], f.rtn[k], b.Format)
			l.scale[k], l.inverse[k], l.zeroPoint[k] = p.Scale, p.inverse, p.ZeroPoint
		}
	}
}

// weigh finds the weight of all groups.
func (v *vectorSet) weigh(f *search, b *Block) {
	l := &f.lanes
	if b.Importance == nil {
		for k := range f.tiles * searchGroups {
			l.weight[k] = float32(f.n)
		}
		return
	}
	v.eachPart(f, b, []*ofLanes{&l.weight}, func(n int) {
		for t := range f.tiles {
			v.rowSums(&l.weight[t*searchGroups], &f.importanceTile[t*n][0], n)
		}
	})
}

// look sums up all weights with the current parameters, and refines these.
func (v *vectorSet) look(f *search, b *Block) {
	l, maxCode := &f.lanes, float32(b.MaxCode())
	v.eachPart(f, b, []*ofLanes{&l.code, &l.codeCode, &l.rest, &l.restCode, &l.restRest}, func(n int) {
		for t := range f.tiles {
			if b.Importance == nil {
				v.stepSums(&l.scale[t*searchGroups], &f.tile[t*n][0], n, maxCode)
			} else {
				v.stepSumsWeighted(&l.scale[t*searchGroups], &f.tile[t*n][0], &f.importanceTile[t*n][0], n, maxCode)
			}
		}
	})
	v.refine[b.ZeroPoint][b.ScaleDtype](&l.scale[0], f.tiles*searchGroups, maxCode)
}
