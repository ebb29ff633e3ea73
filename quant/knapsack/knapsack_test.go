package knapsack

import (
	"errors"
	"math"
	"math/rand/v2"
	"testing"
)

// bruteForce tries every solution.
func bruteForce(layers [][]Cost, budget int64) float64 {
	if len(layers) == 0 {
		if budget < 0 {
			return math.Inf(1)
		}
		return 0
	}
	least := math.Inf(1)
	for _, c := range layers[0] {
		if c.Bits <= budget {
			least = min(least, c.Error+bruteForce(layers[1:], budget-c.Bits))
		}
	}
	return least
}

func TestChoose(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	infeasible := 0
	for range 2000 {
		layers := make([][]Cost, 1+random.IntN(6))
		for i := range layers {
			size := 1 + random.Int64N(50)
			for range 1 + random.IntN(5) {
				layers[i] = append(layers[i], Cost{size * (1 + random.Int64N(9)), float64(random.IntN(40)) / 8})
			}
		}
		budget := random.Int64N(900)
		want := bruteForce(layers, budget)
		choices, err := Choose(layers, budget)
		if math.IsInf(want, 1) {
			infeasible++
			if !errors.Is(err, ErrBudget) {
				t.Fatalf("no solution, but %v, %v", choices, err)
			}
			continue
		}
		bits, sum := int64(0), 0.0
		for i, k := range choices {
			bits += layers[i][k].Bits
			sum += layers[i][k].Error
		}
		if bits > budget || sum != want {
			t.Fatalf("%v within %d: %d bits, error %g, want %g", layers, budget, bits, sum, want)
		}
	}
	if infeasible == 0 || infeasible > 1500 {
		t.Errorf("%d of 2000 problems without a solution", infeasible)
	}
}

// TestChooseLarge has layers as a large model has: the greedy bound shows how
// close the result is.
func TestChooseLarge(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	layers, all := make([][]Cost, 3000), int64(0)
	for i := range layers {
		size := int64(1+random.IntN(64)) * 4096
		all += size
		scale := random.ExpFloat64() * float64(size)
		for _, width := range []int64{2, 3, 4, 5, 6, 8} {
			layers[i] = append(layers[i], Cost{size*width + size/4, scale * math.Pow(4, -float64(width)) * (0.9 + 0.2*random.Float64())})
		}
	}
	budget := all * 17 / 4
	choices, err := Choose(layers, budget)
	if err != nil {
		t.Fatal(err)
	}
	bits := int64(0)
	for i, k := range choices {
		bits += layers[i][k].Bits
	}
	if bits > budget || float64(bits) < 0.9999*float64(budget) {
		t.Errorf("%d bits of %d", bits, budget)
	}
}
