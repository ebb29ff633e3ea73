package kernel

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"
)

// guarded is a slice with known bytes before and behind it, at any alignment.
type guarded struct {
	all, inner []byte
}

func newGuarded(size, misalignment int) guarded {
	all := bytes.Repeat([]byte{0xc9}, size+64+misalignment)
	start := 32 + misalignment
	return guarded{all, all[start : start+size : start+size]}
}

func (g guarded) intact() bool {
	start := len(g.all) - len(g.inner) - 32
	canary := func(b byte) bool { return b == 0xc9 }
	return !slices.ContainsFunc(g.all[:start], func(b byte) bool { return !canary(b) }) &&
		!slices.ContainsFunc(g.all[start+len(g.inner):], func(b byte) bool { return !canary(b) })
}

func (g guarded) float32s() []float32 {
	return unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(g.inner))), len(g.inner)/4)
}

// outputs of one run of a kernel over a block.
type outputs struct {
	packed, scales, zeroPoints, decoded guarded
	sums                                Sums
	underflows                          int
	fault                               Fault
}

func runKernel(k Kernel, b Block, misalignment int) outputs {
	groups := b.Rows * Groups(b.Columns, b.GroupSize)
	o := outputs{
		packed:     newGuarded(b.Rows*RowBytes(b.Columns, b.BitWidth), misalignment),
		scales:     newGuarded(4*groups, 0),
		zeroPoints: newGuarded(4*groups, 0),
		decoded:    newGuarded(4*b.Rows*b.Columns, misalignment),
	}
	b.Packed, b.Scales, b.ZeroPoints = o.packed.inner, o.scales.float32s(), o.zeroPoints.float32s()
	b.Sums = &o.sums
	if o.fault = k.Quantize(&b); o.fault.Kind != NoFault {
		return o
	}
	o.underflows = b.Underflows
	coded := CodedBlock{
		BitWidth: b.BitWidth, Rows: b.Rows, Columns: b.Columns, GroupSize: b.GroupSize,
		Packed: b.Packed, Scales: o.scales.inner, ZeroPoints: o.zeroPoints.inner, Weights: o.decoded.inner,
	}
	if fault := k.Dequantize(&coded); fault.Kind != NoFault {
		panic("float32 cannot overflow")
	}
	return o
}

// compare demands the same bytes, and canaries in their place.
func compare(t *testing.T, k Kernel, b Block, misalignment int, want outputs) {
	t.Helper()
	got := runKernel(k, b, misalignment)
	what := fmt.Sprintf("%s, %+v type %d, %d x %d, groups of %d, off by %d", k.Name, b.Format, b.Type, b.Rows, b.Columns, b.GroupSize, misalignment)
	for _, g := range []guarded{got.packed, got.scales, got.zeroPoints, got.decoded} {
		if !g.intact() {
			t.Fatalf("%s: wrote outside of its memory", what)
		}
	}
	if got.fault.Kind != want.fault.Kind || got.fault.Index != want.fault.Index ||
		math.Float32bits(got.fault.Value) != math.Float32bits(want.fault.Value) {
		t.Fatalf("%s: fault %+v, want %+v", what, got.fault, want.fault)
	}
	if got.fault.Kind != NoFault {
		return
	}
	if !bytes.Equal(got.scales.inner, want.scales.inner) || !bytes.Equal(got.zeroPoints.inner, want.zeroPoints.inner) {
		t.Fatalf("%s: other scales or zero-points", what)
	}
	if !bytes.Equal(got.packed.inner, want.packed.inner) {
		t.Fatalf("%s: other codes:\n%x\n%x", what, got.packed.inner, want.packed.inner)
	}
	if !bytes.Equal(got.decoded.inner, want.decoded.inner) {
		t.Fatalf("%s: other decoded weights", what)
	}
	if got.sums != want.sums {
		t.Fatalf("%s: sums %+v, want %+v", what, got.sums, want.sums)
	}
	if got.underflows != want.underflows {
		t.Fatalf("%s: %d underflows, want %d", what, got.underflows, want.underflows)
	}
}

// randomWeights are n elements of a type, at an odd address if misaligned.
func randomWeights(random *rand.Rand, n int, t ElementType, misalignment int) []byte {
	out := make([]byte, n*t.Size()+misalignment)[misalignment:]
	for i := range n {
		w := float32(random.NormFloat64())
		if random.IntN(50) == 0 {
			w = 0
		}
		switch t {
		case Float16:
			h := Float16Bits(w)
			out[2*i], out[2*i+1] = byte(h), byte(h>>8)
		case BFloat16:
			h := math.Float32bits(w) >> 16
			out[2*i], out[2*i+1] = byte(h), byte(h>>8)
		case Float32:
			store(out[4*i:], []float32{w}, Float32)
		case Float64:
			putFloat64(out, i, random.NormFloat64())
		}
	}
	return out
}

func putFloat64(out []byte, i int, x float64) {
	binary.LittleEndian.PutUint64(out[8*i:], math.Float64bits(x))
}

// randomImportance is nil half of the time.
func randomImportance(random *rand.Rand, columns int) []float32 {
	if random.IntN(2) == 0 {
		return nil
	}
	importance := make([]float32, columns)
	for i := range importance {
		importance[i] = max(0, random.Float32()-0.1)
	}
	return importance
}

var shapes = []struct{ rows, columns, groupSize int }{
	{1, 1, 1}, {1, 7, 7}, {2, 9, 8}, {3, 8, 8}, {5, 40, 8}, {2, 48, 24}, {3, 100, 32}, {2, 129, 128}, {4, 128, 128},
	{1, 200, 200}, {1, 1003, 1003}, {3, 300, 64}, {1, 4096, 4096}, {1, 4104, 4104}, {2, 5001, 4200}, {1, 9000, 8192},
	{70, 64, 64}, {9, 1024, 128}, {2, 8*600 + 3, 8}, {11, 32 * 13, 32}, {3, 16 * 50, 16},
}

// isTried says of a case of a cross whether it is taken: all are, but with -short, as where a
// processor is emulated, one of so many, and each factor of a cross with many others.
func isTried(random *rand.Rand, oneOf int) bool {
	return !testing.Short() || random.IntN(oneOf) == 0
}

// TestKernelsAgree crosses everything that a block can be.
func TestKernelsAgree(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for _, shape := range shapes {
		for _, element := range []ElementType{Float32, Float16, BFloat16, Float64} {
			misalignment := random.IntN(4)
			weights := randomWeights(random, shape.rows*shape.columns, element, misalignment)
			for _, width := range allWidths {
				for zero := IntegerZero; zero <= SymmetricZero; zero++ {
					for scale := ScaleFloat32; scale <= ScaleBFloat16; scale++ {
						if !isTried(random, 20) {
							continue
						}
						method := Method(random.IntN(3))
						b := Block{
							Format: Format{width, zero, scale, method, Integer}, Type: element,
							Rows: shape.rows, Columns: shape.columns, GroupSize: shape.groupSize, Weights: weights,
							Importance: randomImportance(random, shape.columns),
						}
						want := runKernel(Scalar, b, 0)
						for _, k := range All()[1:] {
							compare(t, k, b, misalignment, want)
						}
					}
				}
			}
		}
	}
}

// TestKernelsAgreeOnFaults puts single bad or extreme weights at every position.
func TestKernelsAgreeOnFaults(t *testing.T) {
	values := []float32{float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1)), math.MaxFloat32, 1e-45, 1e30}
	const rows, columns = 2, 45
	random := rand.New(rand.NewPCG(7, 8))
	for _, groupSize := range []int{8, 24, 40, 45} {
		for at := range rows * columns {
			for _, value := range values {
				weights := make([]float32, rows*columns)
				for i := range weights {
					weights[i] = float32(i%7) - 2
				}
				weights[at] = value
				raw := make([]byte, 4*len(weights))
				store(raw, weights, Float32)
				for choice := range 6 {
					if !isTried(random, 20) {
						continue
					}
					scale, method := ScaleDtype(choice%2), Method(choice/2)
					b := Block{Format: Format{4, FloatZero, scale, method, Integer}, Rows: rows, Columns: columns, GroupSize: groupSize, Weights: raw}
					want := runKernel(Scalar, b, 0)
					for _, k := range All()[1:] {
						compare(t, k, b, 0, want)
					}
				}
			}
		}
	}
}

// importanceOf makes a value of 0 .. 1 of each byte, many of them very small.
func importanceOf(raw []byte) []float32 {
	importance := make([]float32, len(raw))
	for i, b := range raw {
		importance[i] = float32(math.Ldexp(float64(b&15)/15, -int(b>>4)*10))
	}
	return importance
}

// FuzzKernelsAgree compares the kernels on arbitrary bits.
func FuzzKernelsAgree(f *testing.F) {
	for choice := range 162 {
		random := rand.New(rand.NewPCG(5, uint64(choice)))
		f.Add(randomWeights(random, 150, ElementType(choice%3), 0), uint8(choice), uint8(choice%7))
	}
	f.Fuzz(func(t *testing.T, raw []byte, choice, size uint8) {
		b := Block{
			Format:    Format{allWidths[int(choice)%6], ZeroPoint(choice / 6 % 3), ScaleDtype(choice / 18 % 3), Method(choice / 54 % 3), Integer},
			Type:      ElementType(int(choice+size) % 3),
			GroupSize: 8 * (1 + int(size)%20), Rows: 1 + int(size)%3,
		}
		b.Columns = len(raw) / b.Type.Size() / b.Rows
		if b.Columns == 0 {
			return
		}
		b.GroupSize = min(b.GroupSize, b.Columns)
		b.Weights = raw[:b.Rows*b.Columns*b.Type.Size()]
		if size%2 == 1 {
			b.Importance = importanceOf(raw[:b.Columns])
		}
		want := runKernel(Scalar, b, 0)
		for _, k := range All()[1:] {
			compare(t, k, b, int(size)%4, want)
		}
	})
}

// TestVectorKernelsRun fails where the CPU has vectors and All does not use
// them.
func TestVectorKernelsRun(t *testing.T) {
	var got []string
	for _, k := range All() {
		got = append(got, k.Name)
	}
	if want := expectedKernels(); !slices.Equal(got, want) {
		t.Errorf("kernels %v, want %v", got, want)
	}
}
