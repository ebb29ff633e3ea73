package kernel

import "math"

// Half-quadratic quantization (Badri and Shaji, "Half-Quadratic Quantization of
// Large Machine Learning Models", 2023): the scale is that of round-to-nearest;
// the zero-point becomes, again and again, the mean of what it would have to be
// for each weight, after the largest errors have been taken out by shrinking.
// Of all zero-points seen, the one of least squared error is kept. The error
// does not fall in every round: the search ends when it has not for some.
const (
	norm         = 0.7 // p of the l_p norm of the errors
	firstBeta    = 10
	kappa        = 1.01          // beta grows by this factor
	hqqRounds    = 24            // 20 are published; where steps are large, the hqq package gets further in them
	hqqPatience  = 6             // rounds without a better zero-point
	powerFirst   = 0x1.4a1164p30 // about 1.3 times the bits of 1.0: the first guess is within 4 %
	powerRefined = 3
)

// threshold is what shrink takes off a rest of one step in the first round.
func threshold(p Parameters) float32 {
	return float32(math.Pow(float64(p.Scale), norm-2) / firstBeta)
}

// nothingLeft is a sum of squared rests below which shrink leaves nothing of any
// of them: a rest r becomes 0 where |r|^(2-norm) <= threshold, and no square is
// larger than the sum. One part in a hundred is for rounding.
func nothingLeft(threshold float32) float32 {
	return float32(0.99 * math.Pow(float64(threshold), 2/(2-norm)))
}

// power is x to the power of norm-1 = -0.3, for x > 0: a guess from the bits of
// x, made better by Newton's method for y^10 * x^3 = 1.
func power(x float32) float32 {
	bits := float32(float32(int32(math.Float32bits(x)))*(norm-1)) + powerFirst
	y := math.Float32frombits(uint32(int32(math.RoundToEven(float64(bits)))))
	cube := float32(x*x) * x
	for range powerRefined {
		y2 := float32(y * y)
		y4 := float32(y2 * y2)
		y10 := float32(y4*y4) * y2
		y += float32(float32(y*(1-float32(cube*y10))) * 0.1)
	}
	return y
}

// hqqSums are sums over the weights of a group, in steps.
type hqqSums struct {
	pull     float32 // of r - shrink(r)
	restRest float32
}

func (s *hqqSums) add(tile []float32, p Parameters, threshold, maxCode float32) {
	var t hqqSums
	for _, w := range tile {
		v := float32(w*p.inverse) + p.ZeroPoint
		r := v - round(v, maxCode)
		magnitude := abs(r)
		shrunk := magnitude - float32(threshold*power(magnitude))
		if !(shrunk > 0) { // or NaN, as the power of 0 is
			shrunk = 0
		}
		shrunk = math.Float32frombits(math.Float32bits(shrunk) | math.Float32bits(r)&signBit)
		t.pull += r - shrunk
		t.restRest += float32(r * r)
	}
	s.pull += t.pull
	s.restRest += t.restRest
}

// next moves the zero-point.
func (s *hqqSums) next(zeroPoint float32, n int, f Format) float32 {
	zeroPoint -= s.pull / float32(n)
	if f.ZeroPoint == IntegerZero {
		return round(zeroPoint, float32(f.MaxCode()))
	}
	return zeroPoint + 0
}

// hqqSearch is where the search of a group stands.
type hqqSearch struct {
	best       float32 // zero-point
	leastError float32
	rounds     int
	worse      int // rounds since the best
}

// goOn counts a round that has found the sums of a zero-point, and gives the next
// zero-point, unless the search has ended.
func (h *hqqSearch) goOn(zeroPoint float32, sums hqqSums, n int, f Format) (next float32, ok bool) {
	h.worse++
	if sums.restRest < h.leastError {
		h.best, h.leastError, h.worse = zeroPoint, sums.restRest, 0
	}
	next = sums.next(zeroPoint, n, f)
	h.rounds++
	return next, next != zeroPoint && h.worse < hqqPatience && h.rounds <= hqqRounds
}

// hqq finds a better zero-point than that of round-to-nearest, or gives it back.
func (s *scratch) hqq(weights []byte, rtn Parameters, b *Block) Parameters {
	p, t := rtn, threshold(rtn)
	h := hqqSearch{best: rtn.ZeroPoint, leastError: infinity}
	for ok := true; ok; t *= 1 / float32(kappa) {
		var sums hqqSums
		s.tiles(weights, b.Type, func(_ int, tile []float32) {
			sums.add(tile, p, t, float32(b.MaxCode()))
		})
		p.ZeroPoint, ok = h.goOn(p.ZeroPoint, sums, len(weights)/b.Type.Size(), b.Format)
	}
	p.ZeroPoint = h.best
	return p
}
