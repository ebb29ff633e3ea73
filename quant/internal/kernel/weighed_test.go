package kernel

import (
	"math/rand/v2"
	"testing"
)

// TestWeighedSums compares what every kernel gives with the sums of weights that were multiplied
// before, to the bit.
func TestWeighedSums(t *testing.T) {
	random := rand.New(rand.NewPCG(4, 2))
	for _, element := range []ElementType{Float32, Float16, BFloat16, Float64} {
		for _, size := range shapes {
			weights := randomWeights(random, size.rows*size.columns, element, 1)
			checkWeighed(t, random, Block{
				Format: Format{BitWidth: 3}, Type: element, Rows: size.rows, Columns: size.columns, GroupSize: size.groupSize, Weights: weights,
				Packed:     make([]byte, size.rows*RowBytes(size.columns, 3)),
				Scales:     make([]float32, size.rows*Groups(size.columns, size.groupSize)),
				ZeroPoints: make([]float32, size.rows*Groups(size.columns, size.groupSize)),
			})
		}
		for e := Q2K; e <= FP8; e++ {
			for _, size := range [][2]int{{1, 7}, {2, 300}, {1, 2500}} {
				weights := randomWeights(random, size[0]*size[1], element, 1)
				checkWeighed(t, random, encodedBlock(e, MeanSquares, element, size[0], size[1], weights, nil))
			}
		}
	}
}

// TestWeighedSumsOfStacks begins within a matrix.
func TestWeighedSumsOfStacks(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 2))
	b := Block{
		Format: Format{BitWidth: 4}, Rows: 3, Columns: 6 * 64, GroupSize: 32, Weights: randomWeights(random, 3*6*64, Float32, 0),
		Stack:  Stack{First: 2 * 64, Columns: 64, Elements: 4 * 64},
		Packed: make([]byte, 3*6*32), Scales: make([]float32, 3*12), ZeroPoints: make([]float32, 3*12),
	}
	checkWeighed(t, random, b)
}

func checkWeighed(t *testing.T, random *rand.Rand, b Block) {
	t.Helper()
	count := b.Columns
	if b.Stack.Elements > 0 {
		count = (b.Stack.First + b.Rows*b.Columns + b.Stack.Elements - 1) / b.Stack.Elements * b.Stack.Columns
	}
	roots := make([]float32, count)
	for i := range roots {
		roots[i] = random.Float32()
	}
	if fault := Scalar.Quantize(&b); fault.Kind != NoFault {
		t.Fatalf("fault %+v", fault)
	}
	weights, decoded := make([]float32, b.Rows*b.Columns), decodedBlock(Scalar, &b)
	load(weights, b.Weights, b.Type)
	for i := range weights {
		column := i % b.Columns
		if b.Stack.Elements > 0 {
			column = b.Stack.ImportanceOf(b.Stack.First + i)
		}
		weights[i] *= roots[column]
		decoded[i] *= roots[column]
	}
	want, _, _ := Compare(elementsOf(weights), elementsOf(decoded), b.Columns)
	for _, k := range All() {
		if got := k.WeighedSums(&b, roots); got != want {
			t.Errorf("%s, %+v type %d, %d x %d, groups of %d: sums %+v, want %+v", k.Name, b.Format, b.Type, b.Rows, b.Columns, b.GroupSize, got, want)
		}
	}
}

func elementsOf(values []float32) Elements {
	bytes := make([]byte, 4*len(values))
	store(bytes, values, Float32)
	return Elements{Float32, bytes}
}
