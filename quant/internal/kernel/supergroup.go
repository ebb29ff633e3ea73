package kernel

// superGroup is a super-group that is being fitted.
type superGroup struct {
	*Description
	*groupLanes
	// Normalized weights, which a tile holds, and their importance.
	weights, importance []float32
	groupSize, groups   int // smaller than those of others where a row ends
	// The power of two that normalizes it, and its reciprocal.
	normal, inverse float32
	// Of each group, as the encoder has them.
	lo, hi, scales, minimums []float32
	// The super-scale and super-minimum, normalized and as they are stored, and the latter by the
	// plain rule.
	units, stored, plain units
	factors              factorUnits
	// Units that are tried, as they are stored, and what they cost.
	tried, triedStored trials
	costs              lanes
}

// superGroups are those of the groups at hand.
func (e *encoder) superGroups() []superGroup {
	perSuper := e.SuperSize / e.GroupSize
	return e.supers[:(e.groups+perSuper-1)/perSuper]
}

// begin takes one of the super-groups.
func (s *superGroup) begin(e *encoder, i int) {
	first := i * e.SuperSize
	group, end := i*e.SuperSize/e.GroupSize, min(e.groups, (i+1)*e.SuperSize/e.GroupSize)
	s.Description, s.groupLanes = e.Description, &e.found[i]
	s.weights, s.importance = e.part(first, min(first+e.SuperSize, e.n))
	s.groupSize, s.groups = e.block.GroupSize, end-group
	s.normal, s.inverse = e.normal[group], e.inverse[group]
	s.lo, s.hi, s.scales, s.minimums = e.lo[group:end], e.hi[group:end], e.scale[group:end], e.minimum[group:end]
	s.scale, s.minimum, s.slope, s.scaleCost, s.minimumCost = lanes{}, lanes{}, lanes{}, lanes{}, lanes{}
}

// group gives the weights of one of the groups and their importance.
func (s *superGroup) group(i int) (weights, importance []float32) {
	first := i * s.groupSize
	end := min(first+s.groupSize, len(s.weights))
	if s.importance == nil {
		return s.weights[first:end], nil
	}
	return s.weights[first:end], s.importance[first:end]
}

// groupLanes is what searches know of a super-group, a lane for each of its groups, of which
// there are 8 or 16. Assembly relies on the order.
type groupLanes struct {
	// The weights, one of each group side by side, then the next ones, and their importance: 1
	// where all weigh the same, 0 where a group has ended. Only vectors have them.
	laid, laidImportance [superSize]float32
	// The sums of a group's importance, of its weighted weights, and of their squares.
	count, weight, square lanes
	// The scale and the minimum of least error for a group without rounding, and what others
	// cost: a scale its distance squared times scaleCost where the minimum is the best for it,
	// which moves by slope, and a minimum its distance squared times minimumCost.
	scale, minimum, slope, scaleCost, minimumCost lanes
	// The error of what is chosen at last, and of round-to-nearest.
	error, plainError lanes
	// Scales, minimums and errors of the factors that are tried, for vectors.
	triedScale, triedMinimum, triedError [trialLanes]lanes
}

// takeMoments makes the sums of all groups.
func takeMoments(s *superGroup) {
	for i := range s.groups {
		weights, importance := s.group(i)
		var count, weight, square float32
		if importance == nil {
			count = float32(len(weights))
		}
		for k, w := range weights {
			weighted := w
			if importance != nil {
				h := importance[k]
				weighted = float32(h * w)
				count += h
			}
			weight += weighted
			square += float32(weighted * w)
		}
		s.count[i], s.weight[i], s.square[i] = count, weight, square
	}
}
