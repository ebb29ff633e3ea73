package kernel

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// patternsOf are n weights of a type; all that the masks leave of their bits is
// random.
func patternsOf(random *rand.Rand, n int, t ElementType, clear, set uint32) []byte {
	out := make([]byte, n*t.Size())
	for i := range n {
		bits := random.Uint32()&^clear | set
		if t == Float32 {
			binary.LittleEndian.PutUint32(out[4*i:], bits)
		} else {
			binary.LittleEndian.PutUint16(out[2*i:], uint16(bits>>16))
		}
	}
	return out
}

// TestRanges compares with the least and the greatest of all weights, where
// they have one sign, both, or are zeros, and where one is not finite.
func TestRanges(t *testing.T) {
	const sign, exponentBit, all = 0x80000000, 0x40000000, 0xffffffff
	random := rand.New(rand.NewPCG(8, 9))
	for _, k := range All() {
		for element := Float32; element <= BFloat16; element++ {
			for _, masks := range [][2]uint32{
				{exponentBit, 0}, {exponentBit | sign, 0}, {exponentBit, sign}, // any, positive, negative
				{all &^ sign, 0}, {all, 0}, {all, sign}, // zeros
			} {
				for n := 1; n < 300; n += 1 + n/20 {
					weights := patternsOf(random, n, element, masks[0], masks[1])
					b := Block{Format: Format{BitWidth: 4}, Type: element, Rows: 1, Columns: n, GroupSize: n, Weights: weights}
					lo, hi, fault := k.Range(&b)
					values := Widen(weights, element)
					if wantLo, wantHi := slices.Min(values), slices.Max(values); fault.Kind != NoFault || float64(lo) != wantLo || float64(hi) != wantHi {
						t.Fatalf("%s: %v .. %v, %+v of %v, want %v .. %v", k.Name, lo, hi, fault, values, wantLo, wantHi)
					}
					at := random.IntN(n)
					copy(weights[at*element.Size():], notFinite(random, element))
					if _, _, fault = k.Range(&b); fault.Kind != NonFinite || fault.Index != at {
						t.Fatalf("%s: %+v, want weight %d of %v", k.Name, fault, at, Widen(weights, element))
					}
				}
			}
		}
	}
}

// TestRangesOfGroups compares those of many groups, which may be looked at together, likewise.
func TestRangesOfGroups(t *testing.T) {
	const sign, exponentBit = 0x80000000, 0x40000000
	random := rand.New(rand.NewPCG(10, 11))
	for _, v := range vectorSets() {
		for element := Float32; element <= BFloat16; element++ {
			for _, masks := range [][2]uint32{{exponentBit, 0}, {exponentBit | sign, 0}, {exponentBit, sign}, {0x7fffffff, 0}} {
				for _, size := range []int{8, 16, 24, 32, 48, 64, 96, 128, 256} {
					groups := 1 + random.IntN(40)
					weights := patternsOf(random, groups*size, element, masks[0], masks[1])
					lo, hi := make([]float32, groups), make([]float32, groups)
					if v.ranges[element](&weights[0], groups, size, &lo[0], &hi[0], 0) {
						t.Fatalf("%s: %d groups of %d, type %d, are not finite", v.name, groups, size, element)
					}
					for i := range groups {
						values := Widen(weights[i*size*element.Size():][:size*element.Size()], element)
						if wantLo, wantHi := slices.Min(values), slices.Max(values); float64(lo[i]) != wantLo || float64(hi[i]) != wantHi {
							t.Fatalf("%s: group %d of %d, type %d: %v .. %v of %v, want %v .. %v", v.name, i, groups, element, lo[i], hi[i], values, wantLo, wantHi)
						}
					}
					copy(weights[random.IntN(groups*size)*element.Size():], notFinite(random, element))
					if !v.ranges[element](&weights[0], groups, size, &lo[0], &hi[0], 0) {
						t.Fatalf("%s: %d groups of %d, type %d, are finite", v.name, groups, size, element)
					}
				}
			}
		}
	}
}

// notFinite is NaN or Inf, of either sign.
func notFinite(random *rand.Rand, t ElementType) []byte {
	sign, rest := random.Uint32()&0x80000000, random.Uint32()>>(random.IntN(16))
	if random.IntN(2) == 0 {
		rest = 0
	}
	bits := sign | 0x7f800000 | rest&0x7fffff
	if t == Float16 {
		bits = sign | 0x7c000000 | rest&0x3ff0000
	}
	out := binary.LittleEndian.AppendUint32(nil, bits)
	if t != Float32 {
		out = out[2:]
	}
	if !math.IsNaN(Widen(out, t)[0]) && !math.IsInf(Widen(out, t)[0], 0) {
		panic("finite")
	}
	return out
}
