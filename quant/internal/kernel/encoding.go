package kernel

import "math"

// Encoding says what numbers codes stand for, and how the scales of groups are stored.
type Encoding uint8

const (
	Integer Encoding = iota // evenly spaced codes, with a scale and a zero-point a group
	Q2K                     // K-quants and IQ4 are llama.cpp's
	Q3K
	Q4K
	Q5K
	Q6K
	IQ4NL
	IQ4XS
	NF4   // QLoRA's (arXiv 2305.14314)
	MXFP4 // OCP Microscaling 1.0
	MXFP8
	NVFP4
	FP8 // OCP 8-bit floating point E4M3
)

// superSize is how many columns share the super-scales of K-quants.
const superSize = 256

// Description is what an encoding fixes. That of Integer is nil.
type Description struct {
	BitWidth  int
	GroupSize int // columns of a group; 0: as wanted
	// Shares tells whether groups of several rows may have one scale.
	Shares bool
	// SuperSize is how many columns share a super-scale: scales are its products with small
	// integers. 0: none.
	SuperSize int
	// LayerScale tells whether scales are products with one super-scale of the layer.
	LayerScale bool
	// Minimums tells whether groups have minimums, which are products of a super-minimum
	// with small integers; zero-points are minimum/scale. Else they are all ZeroPoint.
	Minimums  bool
	ZeroPoint float32
	// Levels are what the codes stand for; nil: 0 .. 2^b-1.
	Levels []float32

	grid   *grid
	scales scaleForm
	// The integers that scales and minimums are made with; minimums have 0, too.
	leastFactor, mostFactor float32
	// refits tells whether a search without minimums first fits scales to the codes that some
	// others give.
	refits bool
}

// descriptions are by Encoding.
var descriptions = [...]*Description{
	Q2K: {BitWidth: 2, GroupSize: 16, SuperSize: superSize, Minimums: true, leastFactor: 1, mostFactor: 15, grid: evenGrid(0, 3)},
	Q3K: {BitWidth: 3, GroupSize: 16, SuperSize: superSize, ZeroPoint: 4, leastFactor: -32, mostFactor: 31, grid: evenGrid(-4, 3)},
	Q4K: {BitWidth: 4, GroupSize: 32, SuperSize: superSize, Minimums: true, leastFactor: 1, mostFactor: 63, grid: evenGrid(0, 15)},
	Q5K: {BitWidth: 5, GroupSize: 32, SuperSize: superSize, Minimums: true, leastFactor: 1, mostFactor: 63, grid: evenGrid(0, 31)},
	Q6K: {BitWidth: 6, GroupSize: 16, SuperSize: superSize, ZeroPoint: 32, leastFactor: -128, mostFactor: 127, grid: evenGrid(-32, 31), refits: true},

	IQ4NL: {BitWidth: 4, GroupSize: 32, Levels: iq4Levels, grid: iq4Grid, scales: signedFloat16, refits: true},
	IQ4XS: {BitWidth: 4, GroupSize: 32, SuperSize: superSize, Levels: iq4Levels, leastFactor: -32, mostFactor: 31, grid: iq4Grid, refits: true},

	NF4:   {BitWidth: 4, GroupSize: 64, Levels: nf4Levels, grid: tableGrid(nf4Levels), scales: ofDtype, refits: true},
	MXFP4: {BitWidth: 4, GroupSize: 32, Levels: e2m1Levels, grid: e2m1Grid, scales: powerOfTwo},
	MXFP8: {BitWidth: 8, GroupSize: 32, Levels: e4m3Levels, grid: e4m3Grid, scales: powerOfTwo},
	NVFP4: {BitWidth: 4, GroupSize: 16, LayerScale: true, Levels: e2m1Levels, grid: e2m1Grid, scales: e4m3OfLayer},
	FP8:   {BitWidth: 8, Shares: true, Levels: e4m3Levels, grid: e4m3Grid, scales: ofDtype},
}

// Describe gives what an encoding fixes, nil for Integer.
func (e Encoding) Describe() *Description { return descriptions[e] }

// LargestScaled is the largest weight that has a scale with the layer's super-scale 1.
func (d *Description) LargestScaled() float32 { return d.grid.high * e4m3.largest }

// SuperScales is how many super-scales a row of so many columns has.
func (d *Description) SuperScales(columns int) int {
	if d.SuperSize == 0 {
		return 0
	}
	return Groups(columns, d.SuperSize)
}

// IsScale tells whether the encoding stores a scale, with a super-scale if it has such.
func (d *Description) IsScale(scale, superScale float32) bool {
	if d.SuperSize == 0 {
		return d.isAlone(scale, superScale)
	}
	if superScale == 0 {
		return scale == 0
	}
	factor := scale / superScale
	least := d.leastFactor
	return isFinite(superScale) && factor >= least && factor <= d.mostFactor && roundEven(factor) == factor
}

// isAlone is IsScale for groups that stand alone.
func (d *Description) isAlone(scale, layerScale float32) bool {
	switch d.scales {
	case signedFloat16:
		return roundScale(scale, ScaleFloat16) == scale
	case powerOfTwo:
		return scale > 0 && (math.Float32bits(scale)&0x7fffff == 0 || scale == 0x1p-127)
	case e4m3OfLayer:
		factor := scale / layerScale
		return isFinite(layerScale) && factor >= 0 && e4m3.has(factor)
	default:
		return true
	}
}

// IsMinimum tells whether zeroPoint*scale is a product of a super-minimum, but for rounding.
func (d *Description) IsMinimum(scale, zeroPoint, superMinimum float32) bool {
	minimum := zeroPoint * scale
	if superMinimum == 0 {
		return minimum == 0
	}
	factor := minimum / superMinimum
	return isFinite(superMinimum) && factor >= 0 && factor <= d.mostFactor+minimumRounding && abs(factor-roundEven(factor)) <= minimumRounding
}

// minimumRounding is how far minimums may be from whole numbers of super-minimums.
const minimumRounding = 0x1p-16
