package kernel

// hqqLanes are half-quadratic quantizations under way, a group in each lane.
// Groups need different numbers of rounds: a lane whose group has ended takes
// the next one.
type hqqLanes struct {
	active      [searchGroups]bool
	searches    [searchGroups]hqqSearch
	nothingLeft [searchGroups]float32
}

// hqqGroups finds the zero-points of groups as hqq of the reference does.
func (v *vectorSet) hqqGroups(s *vectorScratch, f *search, b *Block, c *cursor) (ok bool) {
	f.n, f.tiles = c.n, 1
	var h hqqLanes
	for k := range searchGroups {
		f.weights[k] = &b.Weights[0] // lanes that stay idle read something
		if !v.nextGroup(s, f, b, c, &h, k) {
			return false
		}
	}
	shrinks := false
	for h.active != [searchGroups]bool{} && !b.stopped() {
		if !shrinks {
			v.restSums(f, b, v.stepSums)
			shrinks = h.somethingLeft(f)
		}
		if shrinks {
			v.restSums(f, b, v.hqqSums)
		}
		for k := range searchGroups {
			if !h.active[k] || h.goOn(f, b, k) {
				continue
			}
			f.store(b, k)
			if !v.nextGroup(s, f, b, c, &h, k) {
				return false
			}
		}
	}
	return true
}

// nextGroup begins with the next group that has something to find, if there is
// one.
func (v *vectorSet) nextGroup(s *vectorScratch, f *search, b *Block, c *cursor, h *hqqLanes, k int) (ok bool) {
	h.active[k] = false
	for at, more := c.next(); more && !h.active[k]; {
		if !v.takeGroup(s, f, b, at, k) {
			return false
		}
		if !f.searched[k] {
			f.store(b, k)
			at, more = c.next()
			continue
		}
		h.begin(f, k)
		if f.n <= tileSize {
			f.loadLane(s, b, k)
		}
	}
	return true
}

func (h *hqqLanes) begin(f *search, k int) {
	l, p := &f.lanes, f.rtn[k]
	h.active[k], h.searches[k] = true, hqqSearch{best: p.ZeroPoint, leastError: infinity}
	l.inverse[k], l.zeroPoint[k], l.threshold[k] = p.inverse, p.ZeroPoint, threshold(p)
	l.bestScale[k] = p.Scale
	h.nothingLeft[k] = nothingLeft(l.threshold[k])
}

// loadLane fills one lane of the tile.
func (f *search) loadLane(s *vectorScratch, b *Block, k int) {
	weights := s.weights[:f.n]
	size := b.Type.Size()
	load(weights, b.Weights[f.at[k].weight*size:][:f.n*size], b.Type)
	for i, w := range weights {
		f.tile[i][k] = w
	}
}

// restSums finds rest, in place of pull, and restRest. stepSums gives the same as
// long as shrinking leaves nothing.
func (v *vectorSet) restSums(f *search, b *Block, sums func(lanes, tile *float32, n int, maxCode float32)) {
	l := &f.lanes
	v.eachPart(f, b, []*ofLanes{&l.rest, &l.restRest}, func(n int) { sums(&l.scale[0], &f.tile[0][0], n, float32(b.MaxCode())) })
}

// somethingLeft tells whether shrinking may leave something of a rest.
func (h *hqqLanes) somethingLeft(f *search) bool {
	for k, active := range h.active {
		if active && !(f.lanes.restRest[k] < h.nothingLeft[k]) {
			return true
		}
	}
	return false
}

// goOn gives a lane its next zero-point, unless the lane's group has ended.
func (h *hqqLanes) goOn(f *search, b *Block, k int) (ok bool) {
	l := &f.lanes
	sums := hqqSums{pull: l.rest[k], restRest: l.restRest[k]}
	l.zeroPoint[k], ok = h.searches[k].goOn(l.zeroPoint[k], sums, f.n, b.Format)
	l.bestZeroPoint[k] = h.searches[k].best
	l.threshold[k] *= 1 / float32(kappa)
	h.nothingLeft[k] *= 1 / float32(kappa*kappa)
	return ok
}
