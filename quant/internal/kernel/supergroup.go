package kernel

// superGroup is the normalized weights of one, which a tile holds, and their importance.
type superGroup struct {
	weights, importance []float32
	groupSize, groups   int
	lanes               int // as many as a whole one has groups
	minimums            bool
	grid                *grid
}

func (e *encoder) superGroup() superGroup {
	weights, importance := e.part(0, e.n)
	return superGroup{weights, importance, e.block.GroupSize, e.groups, e.SuperSize / e.GroupSize, e.Minimums, e.grid}
}

// group gives those of one of its groups.
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
	weights, importance [superSize]float32
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

// begin forgets what was found.
func (l *groupLanes) begin() {
	l.scale, l.minimum, l.slope, l.scaleCost, l.minimumCost = lanes{}, lanes{}, lanes{}, lanes{}, lanes{}
}

// takeMoments makes the sums of all groups.
func takeMoments(l *groupLanes, s *superGroup) {
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
		l.count[i], l.weight[i], l.square[i] = count, weight, square
	}
}
