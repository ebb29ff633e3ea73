package kernel

// Elements that vectors read as they lie in memory: Float32, Float16, BFloat16.
// Float64 is left to the reference.
const vectorElements = 3

// vectorSet is what an instruction set brings to a vector kernel: the loops over
// weights, and nothing of what is around them. Together with its assembly it is
// all that a further processor needs.
//
// The functions that take groups work on a run of groups of equal size, a multiple
// of 8, which begin one behind the other; a scale or zero-point belongs to a group.
// Pointers need no alignment unless it is said. Results are those of the reference
// to the bit. None may be nil, but those of packWide.
type vectorSet struct {
	name string // of its kernel

	// ranges finds the smallest and the largest weight of each group, by ElementType.
	// If nonFinite, they are undefined. ranges, code and sums prefetch by turns what lies
	// so many bytes ahead of the weights, so that memory is read all the time.
	ranges [vectorElements]func(weights *byte, groups, groupSize int, lo, hi *float32, ahead int) (nonFinite bool)
	// fit chooses the round-to-nearest parameters of n groups, by ZeroPoint and
	// ScaleDtype; n is rounded up to 8. If not plain, one of them needs more than the
	// plain formulas, and all are undefined.
	fit [3][3]func(lo, hi *float32, n int, maxCode, half float32, scale, inverse, zeroPoint *float32) (plain bool)
	// code gives the codes, one byte each, by ElementType. Before they are clipped, they
	// are integers of 32 bits.
	code [vectorElements]func(weights *byte, groups, groupSize int, inverse, zeroPoint *float32, maxCode float32, codes *byte, ahead int)
	// sums adds the errors of each group to laneSums, by ElementType.
	sums [vectorElements]func(weights *byte, groups, groupSize int, scale, zeroPoint *float32, codes *byte, sums *float64, ahead int)
	// addTails is by ElementType.
	addTails [vectorElements]addTails
	// decode gives float32 weights; scales and zero-points are little-endian float32.
	decode func(codes *byte, groups, groupSize int, scale, zeroPoint, weights *byte)

	// pack and unpack are by bit width, but for 8 bits, for which codes are bytes
	// already. n is a multiple of 8.
	pack, unpack [7]func(to, from *byte, n int)
	// packWide is pack where that has a faster form for a multiple of wideCodes, or nil.
	packWide  [7]func(packed, codes *byte, n int)
	wideCodes int
	// splitHalves is what SplitHalves is said to do.
	splitHalves func(out, packed *byte, blocks, stride int)

	// transpose makes a tile of n rows, a multiple of 8, of the weights of searchGroups
	// groups from a byte offset on, by ElementType.
	transpose [vectorElements]func(groups **byte, offset, n int, tile *float32)
	// rowSums are the sums of n rows of a tile, stepSums and stepSumsWeighted the stepSums of its
	// lanes, from the first one's scale on, but for their weight, hqqSums those of half-quadratic
	// quantization.
	rowSums          func(sums, tile *float32, n int)
	stepSums         func(lanes, tile *float32, n int, maxCode float32)
	stepSumsWeighted func(lanes, tile, importance *float32, n int, maxCode float32)
	hqqSums          func(lanes, tile *float32, n int, maxCode float32)
	// refine keeps in n lanes of searchLanes, a multiple of searchGroups, the least error, and the
	// refined parameters that promise the least, by ZeroPoint and ScaleDtype.
	refine [3][3]func(lanes *float32, n int, maxCode float32)

	// The steps of encodings, which encoderSteps tells of. They are by ElementType, by
	// gridKind, and at last for weights without importance and with it. n is at least one
	// where lanes are trials, a multiple of 8 where they are weights.
	normalizeEnds    func(lo, hi, normal, inverse *float32, n int)                                               // n is rounded up to 16
	levelScales      func(lo, hi, normal, inverse, scale *float32, n int, high, layerScale float32) (plain bool) // n is rounded up to 8
	normalizeWeights [vectorElements]func(out *float32, weights *byte, groups, groupSize int, factors *float32)
	scaleSearch      [gridKinds][2]func(pattern, grid, weights, importance *float32, n int, scale float32) (best float32) // not of evenKind
	trialErrors      [gridKinds][2]func(errors, trials, grid, weights, importance *float32, n int)                        // neither
	levelSearch      [2]func(levels, grid, weights, importance *float32, n int, normal float32) (lane int)
	leastLane        func(errors *float32) (lane int)
	factorSearch     [2]func(group, pattern, units, plain, grid, weights, importance *float32, n int) // of tableKind
	encode           [vectorElements][gridKinds]func(codes *byte, grid *float32, weights *byte, groups, groupSize int, normal, inverse, offset *float32)
	decodedSums      func(weights, decoded *float32, n int, sums *float64)
	// Those of a super-group of evenKind, for 8 groups and for 16, but for encodings that are not.
	// groups is groupLanes.
	layGroups            [superSizes]func(out, weights *float32)
	takeMoments          [superSizes]func(groups *float32)
	minimumSearch        [superSizes]func(groups, pattern *float32, count int, grid *float32)
	groupFactorsMinimums [superSizes]func(groups, pattern *float32, count int, units, plainScales, plainMinimums, grid *float32)
	groupScales16        func(groups, pattern, grid *float32)
	groupFactorsScales16 func(groups, pattern *float32, count int, units, plainScales, plainMinimums, grid *float32)
	// Those of groups and units, between the loops over weights. n is rounded up to 8, or 8 or 16 for largestNumber; unit is not 0.
	minimumScales func(lo, hi, scales, minimums *float32, n int, high float32)
	factorScales  func(lo, hi, scales *float32, n int, low float32)
	multiples     func(values *float32, n int, unit, least, most float32)
	largestNumber func(numbers *float32, n int) (found float32)
	unitParts     func(stored, tried, parts *float32, needed, inverse, normal float32)
	powerScales   func(lo, hi, inverse, scale *float32, n int, high int32) (plain bool)
	groupCoders   func(scale, minimum, inverse, offset *float32, n int)
	unitCosts     func(costs, trials, groups *float32, count int, least, most float32)
	// decodeLevels is decode for codes that stand for 16 levels, decodeE4M3 for those that
	// stand for e4m3Levels.
	decodeLevels func(codes *byte, levels *float32, groups, groupSize int, scale, zeroPoint, weights *byte)
	decodeE4M3   func(codes *byte, groups, groupSize int, scale, zeroPoint, weights *byte)

	// Checks of what results have of groups, which is little-endian float32. What is surely right
	// gives true; where it is false, it may be right. n and perSuper are multiples of 8.
	areE4M3     func(scales *byte, n int, layerScale float32) bool
	areFactors  func(scales, superScales *byte, superGroups, perSuper int, least, most float32) bool
	areMinimums func(scales, zeroPoints, superMinimums *byte, superGroups, perSuper int, most float32) bool

	// prefetch has n bytes loaded into the second-level cache; they need not exist.
	prefetch func(address uintptr, n int)
	// stream copies n bytes to whole lines of 64 bytes without reading these. A fence
	// has to follow before others may see them.
	stream func(to, from *byte, n int)
	fence  func()
}

// superSizes are those of super-groups: 8 groups, or 16.
const superSizes = 2

// fastestSet is that of this CPU, which is found out once, or nil.
var fastestSet = func() *vectorSet {
	if sets := vectorSets(); len(sets) > 0 {
		return sets[len(sets)-1]
	}
	return nil
}()
