package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// TestCompareGivesTheSumsOfQuantize compares what every kernel coded, to the bit.
func TestCompareGivesTheSumsOfQuantize(t *testing.T) {
	random := rand.New(rand.NewPCG(8, 9))
	for _, k := range All() {
		for _, element := range []ElementType{Float32, Float16, BFloat16, Float64} {
			for _, size := range []struct{ rows, columns, group int }{
				{1, 1, 1}, {3, 7, 7}, {2, 8, 8}, {5, 100, 8}, {4, 129, 128}, {3, 1000, 1000}, {2, 3001, 128}, {1, 9000, 9000},
			} {
				b := Block{
					Format: Format{BitWidth: 3}, Type: element, Rows: size.rows, Columns: size.columns, GroupSize: size.group,
					Weights: randomWeights(random, size.rows*size.columns, element, 1),
				}
				want := runKernel(k, b, 0)
				got, inOriginal, inDecoded := Compare(Elements{element, b.Weights}, Elements{Float32, want.decoded.inner}, size.columns)
				what := fmt.Sprintf("%s, type %d, %+v", k.Name, element, size)
				if got != want.sums {
					t.Errorf("%s: sums %+v, want %+v", what, got, want.sums)
				}
				if inOriginal.Kind != NoFault || inDecoded.Kind != NoFault {
					t.Errorf("%s: faults %+v and %+v", what, inOriginal, inDecoded)
				}
			}
		}
	}
}

func TestCompareFindsTheFirstNonFinite(t *testing.T) {
	for _, value := range []float64{math.NaN(), math.Inf(1), math.Inf(-1), 1e39} {
		for _, first := range []int{0, 5, 1023, 1024, 2999} {
			original, decoded := make([]byte, 3000*4), make([]byte, 3000*8)
			for i := first; i < 3000; i += 7 {
				putFloat64(decoded, i, value)
			}
			_, inOriginal, inDecoded := Compare(Elements{Float32, original}, Elements{Float64, decoded}, 1500)
			if inOriginal.Kind != NoFault {
				t.Errorf("zeros: %+v", inOriginal)
			}
			narrow := float32(value)
			if inDecoded.Kind != NonFinite || inDecoded.Index != first || math.Float32bits(inDecoded.Value) != math.Float32bits(narrow) {
				t.Errorf("%g from %d on: %+v", value, first, inDecoded)
			}
		}
	}
}

func TestCompareLargestWeights(t *testing.T) {
	weights := make([]byte, 5000*8)
	for i := range 5000 {
		putFloat64(weights, i, math.MaxFloat32)
	}
	sums, inOriginal, inDecoded := Compare(Elements{Float64, weights}, Elements{Float64, weights}, 5000)
	if inOriginal.Kind != NoFault || inDecoded.Kind != NoFault || sums.Error != 0 || math.IsInf(sums.Weight, 0) {
		t.Errorf("%+v, %+v, %+v", sums, inOriginal, inDecoded)
	}
}

func BenchmarkCompare(b *testing.B) {
	const n = 64 << 10
	random := rand.New(rand.NewPCG(6, 7))
	original, decoded := Elements{Float32, randomWeights(random, n, Float32, 0)}, Elements{Float32, randomWeights(random, n, Float32, 0)}
	b.SetBytes(4 * n)
	for b.Loop() {
		Compare(original, decoded, 4096)
	}
}
