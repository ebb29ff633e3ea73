package kernel

import (
	"encoding/binary"
	"hash/fnv"
	"math/rand/v2"
	"testing"
)

// digests are of all that the reference gives for each encoding, on every processor.
var digests = [...]uint64{
	0x24cf4476a4eab2be, 0x77add01d0a9fb1dc, 0xc04a65ae9dc13d8b, 0x49bb4e5c0c05c428, 0xcda4c8a3ebc3e639,
	0x94a4d1bea2d1b4a2, 0xc8220da30d493796, 0x246abb57c945b107, 0x95130a50c1017f8a,
	0xb2374c16f9261fc, 0xc41910e33acef33d, 0xc147aafa3390c84e, 0x633fca737ca3ca16,
}

// TestProcessorsAgree holds the reference against what it gives elsewhere: Go may fuse products
// and sums on arm64, and does not on x86-64.
func TestProcessorsAgree(t *testing.T) {
	for e := Integer; e <= FP8; e++ {
		if got := digestOf(e); int(e) >= len(digests) || got != digests[e] {
			t.Errorf("encoding %d: %#x", e, got)
		}
	}
}

func digestOf(e Encoding) uint64 {
	const rows, columns = 12, 512
	random := rand.New(rand.NewPCG(20, uint64(e)))
	values, importance := make([]float32, rows*columns), make([]float32, columns)
	for i := range values { // without functions that are not the same everywhere
		values[i] = random.Float32() + random.Float32() + random.Float32() - 1.5
	}
	for i := range importance {
		importance[i] = random.Float32()
	}
	digest := fnv.New64a()
	write := func(b *Block) {
		_ = binary.Write(digest, binary.LittleEndian, b.Packed)
		for _, numbers := range [][]float32{b.Scales, b.ZeroPoints, b.SuperScales, b.SuperMinimums} {
			_ = binary.Write(digest, binary.LittleEndian, numbers)
		}
		_ = binary.Write(digest, binary.LittleEndian, *b.Sums)
	}
	for _, importance := range [][]float32{nil, importance} {
		if e != Integer {
			for _, method := range []Method{RoundToNearest, MeanSquares} {
				b := encodedBlock(e, method, Float32, rows, columns, rawFloat32(values), importance)
				quantizeScalar(&b)
				write(&b)
			}
			continue
		}
		for choice := range 6 * 3 * 3 * 3 {
			b := Block{
				Format: Format{allWidths[choice%6], ZeroPoint(choice / 6 % 3), ScaleDtype(choice / 18 % 3), Method(choice / 54), Integer},
				Rows:   rows, Columns: columns, GroupSize: 64, Weights: rawFloat32(values), Importance: importance,
				Scales: make([]float32, rows*columns/64), ZeroPoints: make([]float32, rows*columns/64), Sums: new(Sums),
			}
			b.Packed = make([]byte, rows*RowBytes(columns, b.BitWidth))
			quantizeScalar(&b)
			write(&b)
		}
	}
	return digest.Sum64()
}
