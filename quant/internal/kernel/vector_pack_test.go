package kernel

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
)

// vectorPackers pack as codeRun does, and one word after the other.
func vectorPackers(width int) map[string]func(to, codes []uint8) {
	packers := map[string]func(to, codes []uint8){}
	for _, v := range vectorSets() {
		packers[v.name] = func(to, codes []uint8) { v.packCodes(to, codes, width) }
		packers[v.name+" words"] = func(to, codes []uint8) { v.pack[width](&to[0], &codes[0], len(codes)) }
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
			for _, v := range vectorSets() {
				unpacked := newGuarded(n, random.IntN(16))
				v.unpack[width](&unpacked.inner[0], &in.last(want)[0], n)
				if !unpacked.intact() || !bytes.Equal(unpacked.inner, codes) {
					t.Fatalf("%s, %d bits, %d codes: unpacked %x, want %x", v.name, width, n, unpacked.all, codes)
				}
			}
		}
	}
}

func BenchmarkPack(b *testing.B) {
	const n = 1 << 10
	codes, packed := make([]uint8, n), make([]uint8, n)
	for _, v := range vectorSets() {
		for _, width := range []int{2, 3, 4, 5, 6} {
			b.Run(fmt.Sprintf("%s/pack%d", v.name, width), func(b *testing.B) {
				b.SetBytes(n)
				for b.Loop() {
					v.pack[width](&packed[0], &codes[0], n)
				}
			})
			b.Run(fmt.Sprintf("%s/unpack%d", v.name, width), func(b *testing.B) {
				b.SetBytes(n)
				for b.Loop() {
					v.unpack[width](&codes[0], &packed[0], n)
				}
			})
		}
	}
}
