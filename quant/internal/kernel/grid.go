package kernel

import (
	"cmp"
	"math"
	"slices"
)

// gridKind says how the level nearest to a number is found.
type gridKind uint8

const (
	evenKind  gridKind = iota // whole numbers, ties to even
	tableKind                 // 16 levels
	floatKind                 // numbers of floating point, ties to even
	gridKinds
)

// grid is what codes stand for, before a scale.
type grid struct {
	kind      gridKind
	low, high float32 // the ends
	// Of a table: its 16 levels in ascending order, their codes, and the largest number that
	// is nearest to each.
	levels, bounds [16]float32
	codes          [16]uint8
	// Of floating point.
	float   *floatFormat
	vectors gridVectors
	// Patterns of searches.
	cuts, spread, abouts pattern
	reaches              lanes
}

// gridVectors are what vectors of 8 numbers need to find levels. Assembly relies on the order.
type gridVectors struct {
	low, high vector8
	// Of a table, bisected by comparing with the 8th bound, then with the 4th or the 12th,
	// then with one of thirds, then with one of odds. Permutations are by the negative of what
	// the comparisons have found, which are -1 where they hold.
	eighth, fourth, twelfth, thirds, odds vector8
	lowerLevels, upperLevels              vector8
	lowerCodes, upperCodes                [8]uint32
	// Of floating point.
	smallestNormal, magic vector8
	shift, signShift      [2]uint64
	// Of a table, for vectors of 16 numbers: a number's cell is number*perCell + firstCell,
	// rounded. A cell has one bound at most, and the levels up to it; levels have codes.
	perCell, firstCell vector8
	cellBounds         [2 * trialLanes]float32
	cellLevels         [2 * trialLanes]uint32
	levels             [trialLanes]float32
	codes              [trialLanes]uint32
	// Of a table, for processors that permute bytes: those of odds and of levels, the lowest
	// first, and codes. Places are what the comparisons have found.
	oddBytes, levelBytes [4][16]uint8
	codeBytes            [16]uint8
}

type vector8 [8]float32

// fill repeats a number.
func (v *vector8) fill(x float32) {
	for i := range v {
		v[i] = x
	}
}

func (g *grid) prepared() *grid {
	g.cuts, g.spread, g.abouts, g.reaches = cutPattern(g.high), spreadPattern(g.high), aboutScales(g), reachPattern(g.low, g.high)
	v := &g.vectors
	v.low.fill(g.low)
	v.high.fill(g.high)
	v.eighth.fill(g.bounds[7])
	v.fourth.fill(g.bounds[3])
	v.twelfth.fill(g.bounds[11])
	for i := range 8 {
		at := (8 - i) % 8
		v.thirds[at] = g.bounds[4*(i%4)+1]
		v.odds[at] = g.bounds[2*i]
		v.lowerLevels[at], v.upperLevels[at] = g.levels[i], g.levels[8+i]
		v.lowerCodes[at], v.upperCodes[at] = uint32(g.codes[i]), uint32(g.codes[8+i])
	}
	if g.kind == tableKind {
		v.setCells(g)
	}
	for i, level := range g.levels {
		v.levels[i], v.codes[i] = level, uint32(g.codes[i])
		for k := range v.levelBytes {
			v.levelBytes[k][i] = uint8(math.Float32bits(level) >> (8 * k))
			v.oddBytes[k][i] = uint8(math.Float32bits(g.bounds[2*i%16]) >> (8 * k))
		}
	}
	v.codeBytes = g.codes
	if g.kind == floatKind {
		f := g.float
		v.smallestNormal.fill(f.smallestNormal)
		v.magic.fill(f.magic)
		v.shift[0], v.signShift[0] = uint64(f.shift()), uint64(31-f.signBit())
	}
	return g
}

// tableCells are as many as leave all bounds of all tables far from where two cells meet, as
// numbers there may be rounded into either.
const tableCells = 22

func (v *gridVectors) setCells(g *grid) {
	width := (g.high - g.low) / (tableCells - 1)
	v.perCell.fill(1 / width)
	v.firstCell.fill(-g.low / width)
	for cell := range v.cellBounds {
		end := g.low + float32(width*(float32(cell)+.5))
		at := g.index(end - width)
		v.cellLevels[cell], v.cellBounds[cell] = uint32(at), infinity
		if g.bounds[at] < end {
			v.cellBounds[cell] = g.bounds[at]
		}
	}
}

var (
	iq4Levels = []float32{-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113}
	iq4Grid   = tableGrid(iq4Levels)

	nf4Levels = []float32{
		-1, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
		-0.09105003625154495, 0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
		0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1,
	}
)

func evenGrid(low, high float32) *grid {
	return (&grid{kind: evenKind, low: low, high: high}).prepared()
}

// tableGrid makes a grid of levels given by code. Of two levels of the same distance, the
// lower one is the nearest.
func tableGrid(levels []float32) *grid {
	g := &grid{kind: tableKind}
	codes := make([]int, len(levels)) // in the order of levels
	for code := range codes {
		codes[code] = code
	}
	slices.SortFunc(codes, func(a, b int) int { return cmp.Compare(levels[a], levels[b]) })
	for i, code := range codes {
		g.levels[i], g.codes[i], g.bounds[i] = levels[code], uint8(code), infinity
		if i+1 < len(codes) {
			g.bounds[i] = (levels[code] + levels[codes[i+1]]) / 2
		}
	}
	g.low, g.high = g.levels[0], g.levels[15]
	return g.prepared()
}

// nearest gives the level nearest to a finite number.
func (g *grid) nearest(y float32) float32 {
	switch g.kind {
	case evenKind:
		return roundEven(min(max(y, g.low), g.high))
	case tableKind:
		return g.levels[g.index(y)]
	default:
		return g.float.round(y)
	}
}

// index is where in a table the level nearest to a number is.
func (g *grid) index(y float32) (i int) {
	for step := 8; step > 0; step /= 2 {
		if y > g.bounds[i+step-1] {
			i += step
		}
	}
	return i
}

// code gives the code of the level nearest to a finite number.
func (g *grid) code(y float32) uint8 {
	switch g.kind {
	case evenKind:
		return uint8(g.nearest(y) - g.low)
	case tableKind:
		return g.codes[g.index(y)]
	default:
		return g.float.code(y)
	}
}

// roundEven rounds a number of less than 2^22 to a whole one: adding 1.5*2^23 leaves no
// bits for a fraction.
func roundEven(x float32) float32 { return float32(x+0x1.8p23) - 0x1.8p23 }
