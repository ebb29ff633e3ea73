package kernel

import (
	"math"
	"math/big"
	"math/rand/v2"
	"testing"
)

// TestFusedMultiplyAdd compares with sums of any precision, also where they lie between two float32.
func TestFusedMultiplyAdd(t *testing.T) {
	random := rand.New(rand.NewPCG(4, 2))
	any32 := func() float32 { return math.Float32frombits(random.Uint32()) }
	few := func(bits int) float32 {
		return float32(random.IntN(1<<bits)) * float32(math.Ldexp(1, -random.IntN(30)))
	}
	for range 1_000_000 {
		x, y, z := any32(), any32(), any32()
		switch random.IntN(4) {
		case 0:
			x, y, z = few(24), few(24), few(24)
		case 1: // ties, and what is next to them
			x, y, z = few(12), few(13), float32(math.Ldexp(1+float64(random.IntN(3)), -random.IntN(60)))
		case 2: // subnormal
			x, y, z = few(24)*0x1p-70, few(24)*0x1p-70, few(24)*0x1p-149
		}
		if random.IntN(2) == 0 {
			z = -z
		}
		if !isFinite(x) || !isFinite(y) || !isFinite(z) {
			continue
		}
		product := new(big.Float).SetPrec(600).Mul(exact(x), exact(y))
		want, _ := product.Add(product, exact(z)).Float32()
		if got := fusedMultiplyAdd(x, y, z); got != want {
			t.Fatalf("%g*%g + %g: %g instead of %g", x, y, z, got, want)
		}
	}
}

func exact(x float32) *big.Float { return new(big.Float).SetPrec(600).SetFloat64(float64(x)) }
