package kernel

import (
	"encoding/binary"
	"math"
)

// StoredTogether is what the number of groups in StoredGroups is a multiple of, but for evenly
// spaced codes.
const StoredTogether = 8

// MostLevel is what levels are, at most, of groups that AllStored is asked of.
const MostLevel = 1 << 50

// StoredGroups is what a result has of groups, as little-endian float32. Those of a super-group
// are all there, and as many as in each other.
type StoredGroups struct {
	Scales, ZeroPoints         []byte // ZeroPoints may be nil: all 0
	SuperScales, SuperMinimums []byte // of each super-group; SuperScales may be one, of the layer
}

// AllStored tells whether an encoding, or that of evenly spaced codes for nil, surely stores all
// of them, and none is so large that levels of up to MostLevel would decode to what is not finite.
// Where it does not, each has to be looked at.
func (k *Kernel) AllStored(d *Description, s *StoredGroups) bool {
	return k.allStored != nil && k.allStored(d, s)
}

func (v *vectorSet) allStored(d *Description, s *StoredGroups) bool {
	if d == nil {
		return noDoubts(s.Scales, doubtUsable) && noDoubts(s.ZeroPoints, doubtSmall)
	}
	groups := len(s.Scales) / 4
	if d.SuperSize > 0 {
		if !noDoubts(s.SuperScales, doubtSmall) || !noDoubts(s.SuperMinimums, doubtSmall) {
			return false
		}
		supers := len(s.SuperScales) / 4
		if !v.areFactors(&s.Scales[0], &s.SuperScales[0], supers, groups/supers, d.leastFactor, d.mostFactor) {
			return false
		}
		if d.Minimums {
			return v.areMinimums(&s.Scales[0], &s.ZeroPoints[0], &s.SuperMinimums[0], supers, groups/supers, d.mostFactor)
		}
		return allAre(s.ZeroPoints, d.ZeroPoint)
	}
	return allAre(s.ZeroPoints, d.ZeroPoint) && v.areAlone(d, s)
}

// areAlone is isAlone for all scales, which have to be finite, too.
func (v *vectorSet) areAlone(d *Description, s *StoredGroups) bool {
	switch d.scales {
	case signedFloat16:
		return noDoubts(s.Scales, doubtFloat16)
	case powerOfTwo:
		return noDoubts(s.Scales, doubtPower)
	case e4m3OfLayer:
		layerScale := float32At(s.SuperScales, 0)
		return -large < layerScale && layerScale < large && v.areE4M3(&s.Scales[0], len(s.Scales)/4, layerScale)
	default:
		return noDoubts(s.Scales, doubtSmall)
	}
}

// What follows sets bits of what two numbers, one in each half, may not be. There are no jumps in
// it, and no half takes from the other.

const signs = 1<<63 | 1<<31

// both32 is a constant in each half.
func both32(bits uint64) uint64 { return bits<<32 | bits }

// large is what scales and zero-points are surely small below: even 448 * 2^60 * MostLevel is finite.
const large = 1 << 60

// doubtSmall doubts magnitudes from large on, Inf and NaN among them.
func doubtSmall(bits uint64) uint64 {
	const exponent = (127 + 60) << 23
	return (bits&^signs + both32(1<<31-exponent)) & signs
}

// doubtUsable doubts 0, too.
func doubtUsable(bits uint64) uint64 { return doubtSmall(bits) | below(bits, 1) }

// doubtPower doubts all but normal powers of two, and what doubtSmall does.
func doubtPower(bits uint64) uint64 {
	return bits&(signs|both32(1<<23-1)) | doubtSmall(bits) | below(bits, 1<<23)
}

// doubtFloat16 doubts all but normal numbers of float16.
func doubtFloat16(bits uint64) uint64 {
	const smallest, largest = 0x38800000, 0x477fe000
	return bits&both32(1<<13-1) | below(bits, smallest) | ^below(bits, largest+1)&signs
}

// below sets the signs where magnitudes are less than a bound.
func below(bits, bound uint64) uint64 { return ^((bits | signs) - both32(bound)) & signs }

// noDoubts tells whether there is none of any of some numbers.
func noDoubts(values []byte, doubt func(bits uint64) uint64) bool {
	found := uint64(0)
	for len(values) >= 8 {
		found |= doubt(binary.LittleEndian.Uint64(values))
		values = values[8:]
	}
	if len(values) > 0 {
		found |= doubt(both32(uint64(binary.LittleEndian.Uint32(values))))
	}
	return found == 0
}

// allAre tells whether numbers have the bits of one; nil stands for zeros.
func allAre(values []byte, number float32) bool {
	if values == nil {
		return number == 0
	}
	bits := both32(uint64(math.Float32bits(number)))
	return noDoubts(values, func(others uint64) uint64 { return others ^ bits })
}
