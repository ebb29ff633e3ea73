package kernel

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
)

// vectorPackers pack as codeRun does, and one word after the other.
func vectorPackers(width int) map[string]func(to, codes []uint8) {
	packers := map[string]func(to, codes []uint8){
		"words": func(to, codes []uint8) { packers[width](&to[0], &codes[0], len(codes)) },
	}
	for _, k := range All()[1:] {
		v := map[string]*vectorSet{"avx2": &avx2, "avx512": &avx512}[k.Name]
		packers[k.Name] = func(to, codes []uint8) { v.pack(to, codes, width) }
	}
	return packers
}

// TestVectorsPackABitStream has every multiple of 8 up to several steps of the
// widest loop. Inputs end where nothing may be read, outputs are watched.
func TestVectorsPackABitStream(t *testing.T) {
	if len(All()) == 1 {
		t.Skip("this CPU has no vector kernel")
	}
	random := rand.New(rand.NewPCG(18, 19))
	const most = 400
	in := newFenced(t, most)
	for _, width := range []int{2, 3, 4, 5, 6} {
		for n := 8; n <= most; n += 8 {
			codes := make([]uint8, n)
			for i := range codes {
				codes[i] = uint8(random.IntN(1 << width))
			}
			want := packBits(codes, width)
			for name, pack := range vectorPackers(width) {
				packed := newGuarded(len(want), random.IntN(16))
				pack(packed.inner, in.last(codes))
				if !packed.intact() || !bytes.Equal(packed.inner, want) {
					t.Fatalf("%s, %d bits, %d codes: %x, want %x", name, width, n, packed.all, want)
				}
			}
			unpacked := newGuarded(n, random.IntN(16))
			unpackers[width](&unpacked.inner[0], &in.last(want)[0], n)
			if !unpacked.intact() || !bytes.Equal(unpacked.inner, codes) {
				t.Fatalf("%d bits, %d codes: unpacked %x, want %x", width, n, unpacked.all, codes)
			}
		}
	}
}

func BenchmarkPack(b *testing.B) {
	const n = 1 << 10
	codes, packed := make([]uint8, n), make([]uint8, n)
	for _, width := range []int{2, 3, 4, 5, 6} {
		b.Run(fmt.Sprintf("pack%d", width), func(b *testing.B) {
			b.SetBytes(n)
			for b.Loop() {
				packers[width](&packed[0], &codes[0], n)
			}
		})
		b.Run(fmt.Sprintf("unpack%d", width), func(b *testing.B) {
			b.SetBytes(n)
			for b.Loop() {
				unpackers[width](&codes[0], &packed[0], n)
			}
		})
	}
}
