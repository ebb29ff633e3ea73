package kernel

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
			v.fillLanes(f, b)
			v.search(f, b)
		}
		for k := range f.count {
			f.store(b, k)
		}
	}
	return true
}

// fillLanes gives idle lanes something to do, and loads groups that fit into one
// tile.
func (v *vectorSet) fillLanes(f *search, b *Block) {
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
		v.loadTile(f, b, 0, f.n)
	}
}

// search is the function of that name of the reference, for all lanes.
func (v *vectorSet) search(f *search, b *Block) {
	if f.count == 1 {
		v.searchAlone(f, b)
	} else {
		f.cut(b.Format)
		for start := range starts {
			v.begin(f, start, b)
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

// cut makes the ranges of all starts. Vectors that read what was written just before, number by
// number, have to wait for it.
func (f *search) cut(format Format) {
	for start := range starts {
		c, lo, hi := cutOf(start, format), &f.cutLo[start], &f.cutHi[start]
		for k := range searchGroups {
			lo[k], hi[k] = c.of(f.lo[k], f.hi[k], format.ZeroPoint)
		}
	}
}

// begin makes the parameters of a start.
func (v *vectorSet) begin(f *search, start int, b *Block) {
	l := &f.lanes
	if v.fit[b.ZeroPoint][b.ScaleDtype](&f.cutLo[start][0], &f.cutHi[start][0], searchGroups, float32(b.MaxCode()), half(b.Format), &l.scale[0], &l.inverse[0], &l.zeroPoint[0]) {
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
	v.tiles(f, b, func(n int) {
		if b.Importance == nil {
			v.stepSums(&l.scale[0], &f.tile[0][0], n, maxCode)
		} else {
			v.stepSumsWeighted(&l.scale[0], &f.tile[0][0], &f.importanceTile[0][0], n, maxCode)
		}
	})
	v.refine[b.ZeroPoint][b.ScaleDtype](&l.scale[0], maxCode)
}
