package kernel

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// TestStreamTo copies from and to every place within a line. What is streamed
// faults where it is not aligned.
func TestStreamTo(t *testing.T) {
	random := rand.New(rand.NewPCG(14, 15))
	for offset := range 64 {
		for n := 1; n < 400; n++ {
			from := make([]byte, n)
			for i := range from {
				from[i] = byte(random.Uint32())
			}
			for _, v := range vectorSets() {
				to := newGuarded(n, offset)
				v.streamTo(to.inner, from)
				v.fence()
				if !to.intact() || !bytes.Equal(to.inner, from) {
					t.Fatalf("%s, %d bytes at %d: %x, want %x", v.name, n, offset, to.all, from)
				}
			}
		}
	}
}

// TestStreamedOutputs has outputs just below, at and above the size from which
// they are streamed, at every place within a line, whole and as parts of a group.
func TestStreamedOutputs(t *testing.T) {
	random := rand.New(rand.NewPCG(16, 17))
	for offset := range 64 {
		for _, width := range allWidths {
			element := ElementType(random.IntN(3))
			groupSize := []int{8, 40, 128, 1000, 8 * minStreamed}[random.IntN(5)]
			columns := 8*minStreamed/width + 8*(random.IntN(5)-2) + random.IntN(8)
			b := Block{
				Format: Format{BitWidth: width, ZeroPoint: ZeroPoint(random.IntN(3)), Method: Method(random.IntN(20) / 18)}, Type: element,
				Rows: 1, Columns: columns, GroupSize: min(groupSize, columns), Weights: randomWeights(random, columns, element, 0),
			}
			want := runKernel(Scalar, b, 0)
			part := b
			part.GroupSize, part.Method = columns, RoundToNearest
			wantPart := codeAlone(Scalar, part, 0)
			for _, k := range All()[1:] {
				compare(t, k, b, offset, want)
				if got := codeAlone(k, part, offset); !got.packed.intact() || !bytes.Equal(got.packed.inner, wantPart.packed.inner) || got.sums != wantPart.sums {
					t.Fatalf("%s, %d bits, %d weights at %d: other codes of a part", k.Name, width, columns, offset)
				}
			}
		}
	}
}

// codeAlone codes a group by the two halves of Quantize.
func codeAlone(k Kernel, b Block, misalignment int) (o outputs) {
	lo, hi, _ := k.Range(&b)
	p, _ := Fit(lo, hi, b.Format)
	o.packed = newGuarded(RowBytes(b.Columns, b.BitWidth), misalignment)
	b.Packed, b.Sums = o.packed.inner, &o.sums
	k.Code(&b, p)
	return o
}
