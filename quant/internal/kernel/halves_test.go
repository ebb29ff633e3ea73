package kernel

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
)

func TestHalvesAreSplit(t *testing.T) {
	functions := map[string]func(out, packed *byte, blocks, stride int){"scalar": splitHalvesScalar}
	for _, v := range vectorSets() {
		functions[v.name] = v.splitHalves
	}
	random := rand.New(rand.NewPCG(4, 5))
	in := newFenced(t, 16*40)
	for blocks := 1; blocks <= 40; blocks++ {
		codes := make([]uint8, 32*blocks)
		for i := range codes {
			codes[i] = uint8(random.IntN(16))
		}
		packed := in.last(packBits(codes, 4))
		for _, stride := range []int{16, 17, 18, 20} {
			want := make([]byte, (blocks-1)*stride+16)
			for i := range codes {
				want[i/32*stride+i%16] |= codes[i] << (i % 32 / 16 * 4)
			}
			for name, split := range functions {
				out := newGuarded(len(want), random.IntN(16))
				clear(out.inner)
				split(&out.inner[0], &packed[0], blocks, stride)
				if !out.intact() || !bytes.Equal(out.inner, want) {
					t.Fatalf("%s, %d blocks, stride %d: %x, want %x", name, blocks, stride, out.all, want)
				}
			}
			out := make([]byte, len(want))
			if SplitHalves(out, packed, blocks, stride); !bytes.Equal(out, want) {
				t.Fatalf("%d blocks, stride %d: %x, want %x", blocks, stride, out, want)
			}
		}
	}
}

func TestHalvesRefuseWhatIsShort(t *testing.T) {
	for _, sizes := range [][2]int{{33, 32}, {34, 31}} {
		t.Run(fmt.Sprint(sizes), func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("memory behind a slice was touched")
				}
			}()
			SplitHalves(make([]byte, sizes[0]), make([]byte, sizes[1]), 2, 18)
		})
	}
}
