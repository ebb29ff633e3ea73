package kernel

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// TestPower compares the fast power with math.Pow, over what rests of weights can
// be and beyond.
func TestPower(t *testing.T) {
	worst := 0.0
	for bits := math.Float32bits(1e-6); bits <= math.Float32bits(8); bits += 101 {
		x := math.Float32frombits(bits)
		want := math.Pow(float64(x), norm-1)
		worst = math.Max(worst, math.Abs(float64(power(x))/want-1))
	}
	if worst >= 1e-6 {
		t.Errorf("relative error %g", worst)
	}
}

// searchMethods are those that look at weights again and again.
var searchMethods = []Method{MeanSquares, HalfQuadratic}

// TestIdleLanes searches 1 .. 40 groups, so that batches of all lengths occur, alone
// and together with ragged ones, again and again with the working memory of those before.
func TestIdleLanes(t *testing.T) {
	random := rand.New(rand.NewPCG(8, 9))
	for groups := 1; groups <= 40; groups++ {
		for _, size := range []int{8, 16, 24, 128} {
			for _, rest := range []int{0, 1, 7, 13} {
				b := Block{Rows: 1 + groups%3, Columns: groups*size + rest%size, GroupSize: size}
				b.Weights = randomWeights(random, b.Rows*b.Columns, Float32, 0)
				for _, method := range searchMethods {
					b.Format = Format{allWidths[groups%6], ZeroPoint(groups % 2), ScaleFloat32, method, Integer}
					b.Importance = nil
					if method == MeanSquares {
						b.Importance = randomImportance(random, b.Columns)
					}
					want := runKernel(Scalar, b, 0)
					for _, k := range All()[1:] {
						compare(t, k, b, 0, want)
					}
				}
			}
		}
	}
}

type namedGroup struct {
	name    string
	weights []float32
}

// oddGroups are groups to which searches do something else than usual.
func oddGroups(random *rand.Rand, n int) (groups []namedGroup) {
	fill := func(name string, value func(i int) float32) {
		group := make([]float32, n)
		for i := range group {
			group[i] = value(i)
		}
		groups = append(groups, namedGroup{name, group})
	}
	normal := func() float32 { return float32(random.NormFloat64()) }
	fill("normal", func(int) float32 { return normal() })
	fill("zeros", func(int) float32 { return 0 })
	fill("constant", func(int) float32 { return -0.3 })
	fill("one value", func(i int) float32 { return float32(min(1, i%n)) * 3 })
	fill("offset", func(int) float32 { return 1 + normal()*1e-3 })
	fill("offset beyond the bound", func(int) float32 { return 1 + normal()*1e-6 })
	fill("too small for float16", func(int) float32 { return normal() * 1e-9 })
	fill("too near for float16", func(i int) float32 { return 1 + float32(i%2)*0x1p-23 })
	fill("subnormal", func(int) float32 { return normal() * 1e-40 })
	fill("smallest plain", func(int) float32 { return normal() * 0x1p-118 })
	fill("largest plain", func(int) float32 { return normal() * 0x1p118 })
	fill("huge", func(int) float32 { return normal() * 0x1p124 })
	fill("largest", func(i int) float32 { return math.MaxFloat32 * float32(1-i%2*2) })
	fill("largest and smallest", func(i int) float32 { return []float32{math.MaxFloat32, 1e-45}[i%2] })
	fill("outlier", func(i int) float32 { return []float32{1e30, normal()}[min(i, 1)] })
	return groups
}

// TestOddGroups puts every odd group among normal ones. What is
// chosen for a group must not depend on the lane or on its neighbours.
func TestOddGroups(t *testing.T) {
	const size, count = 24, 20
	random := rand.New(rand.NewPCG(10, 11))
	normal := make([]float32, size*count)
	for i := range normal {
		normal[i] = float32(random.NormFloat64())
	}
	for _, group := range oddGroups(random, size) {
		for _, method := range searchMethods {
			for zero := IntegerZero; zero <= SymmetricZero; zero++ {
				for scale := ScaleFloat32; scale <= ScaleBFloat16; scale++ {
					format := Format{3, zero, scale, method, Integer}
					single := Block{Format: format, Rows: 1, Columns: size, GroupSize: size, Weights: rawFloat32(group.weights)}
					alone := runKernel(Scalar, single, 0)
					for _, lane := range []int{0, 1, 15, 16, count - 1} {
						weights := append([]float32(nil), normal...)
						copy(weights[lane*size:], group.weights)
						b := Block{Format: format, Rows: 1, Columns: len(weights), GroupSize: size, Weights: rawFloat32(weights)}
						want := runKernel(Scalar, b, 0)
						for _, k := range All()[1:] {
							compare(t, k, b, 0, want)
						}
						if want.underflows != alone.underflows {
							t.Fatalf("%s, %+v: %d underflows, alone %d", group.name, format, want.underflows, alone.underflows)
						}
						if want.fault.Kind != alone.fault.Kind {
							t.Fatalf("%s: fault %+v, alone %+v", group.name, want.fault, alone.fault)
						}
						if want.fault.Kind == NoFault && !bytes.Equal(want.decoded.inner[4*lane*size:][:4*size], alone.decoded.inner) {
							t.Fatalf("%s, %+v, lane %d: other weights than alone", group.name, format, lane)
						}
					}
				}
			}
		}
	}
}

func rawFloat32(weights []float32) []byte {
	raw := make([]byte, 4*len(weights))
	store(raw, weights, Float32)
	return raw
}

// squaredError is that of decoded weights, weighted, in float64.
func squaredError(weights []float32, decoded []byte, importance []float32) (sum float64) {
	for i, w := range weights {
		e := float64(w) - float64(float32At(decoded, i))
		h := 1.0
		if importance != nil {
			h = float64(importance[i])
		}
		sum += h * e * e
	}
	return sum
}

// TestNeverWorse compares mse with round-to-nearest, without any tolerance, even
// where float32 leaves next to nothing to choose.
func TestNeverWorse(t *testing.T) {
	random := rand.New(rand.NewPCG(12, 13))
	for round := range 20 {
		for _, group := range oddGroups(random, 1+random.IntN(50)) {
			weights := group.weights
			for _, width := range allWidths {
				for zero := IntegerZero; zero <= SymmetricZero; zero++ {
					b := Block{Format: Format{BitWidth: width, ZeroPoint: zero}, Rows: 1, Columns: len(weights), GroupSize: len(weights), Weights: rawFloat32(weights)}
					importance := randomImportance(random, b.Columns)
					nearest := runKernel(Scalar, b, 0)
					b.Method, b.Importance = MeanSquares, importance
					searched := runKernel(Scalar, b, 0)
					got, bound := squaredError(weights, searched.decoded.inner, importance), squaredError(weights, nearest.decoded.inner, importance)
					if !(got <= bound) {
						t.Fatalf("round %d, %s, %+v: error %g, round-to-nearest has %g", round, group.name, b.Format, got, bound)
					}
				}
			}
		}
	}
}

// TestStartRanges pins what search begins with: first the whole range, then cut
// ones that stay within it.
func TestStartRanges(t *testing.T) {
	for _, width := range allWidths {
		for zero := IntegerZero; zero <= SymmetricZero; zero++ {
			f := Format{BitWidth: width, ZeroPoint: zero}
			lo, hi := span(-1, 2, zero)
			seen := map[string]bool{}
			for start := range starts {
				a, b := cutOf(start, f).of(lo, hi, zero)
				switch {
				case start == 0 && zero != SymmetricZero && (a != lo || b != hi):
					t.Errorf("%+v: the first range is %g .. %g", f, a, b)
				case start == 0 && zero == SymmetricZero && a != 2:
					t.Errorf("%+v: the first range reaches %g", f, a)
				case zero != SymmetricZero && (a < lo || b > hi || a >= b):
					t.Errorf("%+v: start %d is %g .. %g", f, start, a, b)
				}
				seen[fmt.Sprint(a, b)] = true
			}
			if len(seen) != starts {
				t.Errorf("%+v: %d different starts", f, len(seen))
			}
		}
	}
}

// TestNoStartPromises searches groups of which no start leads anywhere, as the
// zero-points of least squared error are out of bounds. Working memory still has what
// groups left there for which they are not, and which would suit these ones too.
func TestNoStartPromises(t *testing.T) {
	const size, groups = 8, 64
	far := []float32{1.547330601777068e+26, 1.547472272771554e+26, 1.5475194964363827e+26, 1.54761394376604e+26,
		1.5475194964363827e+26, 1.5475667201012114e+26, 1.5472833781122393e+26, 1.547330601777068e+26}
	importance := []float32{1.828e-27, 5.303e-27, 2.0243e-3, 7.036e-25, 1, 7.8177e-7, 1.7195e-15, 7.1232e-13}
	var weights []float32
	for group := range groups {
		for _, w := range far {
			if group < groups/2 { // wider, and so nearer to 0 in steps
				w = far[0] + 1.5*(w-far[0]) + float32(group)*1e21
			}
			weights = append(weights, w)
		}
	}
	b := Block{
		Format: Format{2, FloatZero, ScaleFloat32, MeanSquares, Integer}, Rows: groups, Columns: size, GroupSize: size,
		Weights: rawFloat32(weights), Importance: importance,
	}
	want := runKernel(Scalar, b, 0)
	for _, k := range All()[1:] {
		compare(t, k, b, 0, want)
	}
}
