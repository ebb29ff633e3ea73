package kernel

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// littleEndian is numbers as results have them, nil for none.
func littleEndian(values []float32) []byte {
	if len(values) == 0 {
		return nil
	}
	out := make([]byte, 4*len(values))
	store(out, values, Float32)
	return out
}

// isStored is AllStored, and no faster than it is simple.
func isStored(d *Description, s *StoredGroups) bool {
	groups, supers := len(s.Scales)/4, len(s.SuperScales)/4
	for i := range groups {
		scale, zeroPoint := float32At(s.Scales, i), float32(0)
		if s.ZeroPoints != nil {
			zeroPoint = float32At(s.ZeroPoints, i)
		}
		if !isFinite(scale) || !isFinite(zeroPoint) {
			return false
		}
		if d == nil {
			if scale == 0 {
				return false
			}
			continue
		}
		super, superMinimum := float32(0), float32(0)
		if supers > 0 {
			super = float32At(s.SuperScales, i*supers/groups)
		}
		if d.Minimums {
			superMinimum = float32At(s.SuperMinimums, i*supers/groups)
		}
		if !d.IsScale(scale, super) || d.Minimums && !d.IsMinimum(scale, zeroPoint, superMinimum) || !d.Minimums && zeroPoint != d.ZeroPoint {
			return false
		}
	}
	return true
}

// storedBy is what an encoding makes of random weights.
func storedBy(e Encoding, m Method, random *rand.Rand) (d *Description, s StoredGroups) {
	const rows, columns = 3, 512
	weights := make([]float32, rows*columns)
	for i := range weights {
		weights[i] = float32(random.NormFloat64() * 0.02)
	}
	if e == Integer {
		b := Block{
			Format: Format{BitWidth: 4, Method: m}, Type: Float32, Rows: rows, Columns: columns, GroupSize: 64, Weights: littleEndian(weights),
			Packed: make([]byte, rows*columns/2), Scales: make([]float32, rows*columns/64), ZeroPoints: make([]float32, rows*columns/64),
		}
		Scalar.Quantize(&b)
		return nil, StoredGroups{Scales: littleEndian(b.Scales), ZeroPoints: littleEndian(b.ZeroPoints)}
	}
	b := encodedBlock(e, m, Float32, rows, columns, littleEndian(weights), nil)
	Scalar.Quantize(&b)
	s = StoredGroups{littleEndian(b.Scales), littleEndian(b.ZeroPoints), littleEndian(b.SuperScales), littleEndian(b.SuperMinimums)}
	if d = e.Describe(); d.LayerScale {
		s.SuperScales = littleEndian([]float32{b.LayerScale})
	}
	return d, s
}

// damage changes one of the numbers of one of the lists.
func damage(s *StoredGroups, random *rand.Rand) {
	lists := []*[]byte{&s.Scales, &s.ZeroPoints, &s.SuperScales, &s.SuperMinimums}
	lists = slices.DeleteFunc(lists, func(list *[]byte) bool { return len(*list) == 0 })
	list := lists[random.IntN(len(lists))]
	*list = slices.Clone(*list)
	at := (*list)[4*random.IntN(len(*list)/4):]
	bits := binary.LittleEndian.Uint32(at)
	switch random.IntN(4) {
	case 0:
		bits ^= 1 << random.IntN(32)
	case 1:
		bits += uint32(random.IntN(9)) - 4
	case 2:
		bits = math.Float32bits(math.Float32frombits(bits) * float32(random.IntN(64)-32) / float32(1+random.IntN(16)))
	default:
		special := []float32{0, float32(math.Copysign(0, -1)), 1, -1, 1e-45, 0x1p-127, 0x1p-126, 0x1p127, math.MaxFloat32, float32(math.Inf(1)), float32(math.Inf(-1)), float32(math.NaN()), 65504, 65536, 0x1p-14, 0x1p-24}
		bits = math.Float32bits(special[random.IntN(len(special))])
	}
	binary.LittleEndian.PutUint32(at, bits)
}

// TestStoredGroupsAreFound: what encodings make is surely stored, which saves looking at each.
func TestStoredGroupsAreFound(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 8))
	for e := Integer; e <= FP8; e++ {
		for _, m := range []Method{RoundToNearest, MeanSquares} {
			d, s := storedBy(e, m, random)
			if !isStored(d, &s) {
				t.Fatalf("encoding %d method %d does not store what it makes", e, m)
			}
			for _, k := range All() {
				if got := k.AllStored(d, &s); got != (k.Name != Scalar.Name) {
					t.Errorf("%s: encoding %d method %d: %v", k.Name, e, m, got)
				}
			}
		}
	}
}

// TestDamagedGroupsAreNotStored: what is surely stored is stored.
func TestDamagedGroupsAreNotStored(t *testing.T) {
	random := rand.New(rand.NewPCG(9, 10))
	for e := Integer; e <= FP8; e++ {
		d, whole := storedBy(e, RoundToNearest, random)
		found := 0
		for range 20000 {
			s := whole
			damage(&s, random)
			is := isStored(d, &s)
			for _, k := range All()[1:] {
				if k.AllStored(d, &s) && !is {
					t.Fatalf("%s: encoding %d stores %v", k.Name, e, s)
				}
			}
			if !is {
				found++
			}
		}
		if found < 500 {
			t.Errorf("encoding %d: only %d of all were damaged", e, found)
		}
	}
}
