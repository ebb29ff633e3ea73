package kernel

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

var allWidths = []int{2, 3, 4, 5, 6, 8}

// packBits is the definition: bit j of the stream is bit j%8 of byte j/8.
func packBits(codes []uint8, bitWidth int) []byte {
	out := make([]byte, (len(codes)*bitWidth+7)/8)
	for i, code := range codes {
		for b := range bitWidth {
			j := i*bitWidth + b
			out[j/8] |= code >> b & 1 << (j % 8)
		}
	}
	return out
}

func TestPackIsALittleEndianBitStream(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, width := range allWidths {
		for n := range 70 {
			codes := make([]uint8, n)
			for i := range codes {
				codes[i] = uint8(random.IntN(1 << width))
			}
			want := packBits(codes, width)
			if got := RowBytes(n, width); got != len(want) {
				t.Fatalf("RowBytes(%d, %d) = %d, want %d", n, width, got, len(want))
			}
			guarded := bytes.Repeat([]byte{0xa5}, len(want)+16)
			pack(guarded[8:8+len(want)], codes, width)
			if !bytes.Equal(guarded[8:8+len(want)], want) {
				t.Fatalf("width %d, %d codes: %x, want %x", width, n, guarded[8:8+len(want)], want)
			}
			if !bytes.Equal(guarded[:8], guarded[8+len(want):]) || guarded[0] != 0xa5 {
				t.Fatalf("width %d, %d codes: wrote outside of its bytes", width, n)
			}
			back := make([]uint8, n)
			unpack(back, want, width)
			if !bytes.Equal(back, codes) {
				t.Fatalf("width %d, %d codes: unpacked %v, want %v", width, n, back, codes)
			}
		}
	}
}
