package kernel

import (
	"math"
	"slices"
)

// sumLanes is how many partial sums a block keeps: the weight in column i of
// its group is added to lane i%sumLanes. The order of additions is part of the
// result, so vector kernels use the same lanes.
const sumLanes = 8

// Sums are what the error metrics of a layer are computed from, w being the
// float32 weights and d the decoded ones.
type Sums struct {
	Error    float64 // sum of (w-d)^2
	Weight   float64 // sum of w^2
	Decoded  float64 // sum of d^2
	Product  float64 // sum of w*d
	MaxError float64 // max of |w-d|
}

// Add joins the sums of a further block.
func (s *Sums) Add(other Sums) {
	s.Error += other.Error
	s.Weight += other.Weight
	s.Decoded += other.Decoded
	s.Product += other.Product
	s.MaxError = max(s.MaxError, other.MaxError)
}

// laneSums are the partial sums of a block. Assembly relies on their order.
type laneSums struct {
	error, weight, decoded, product, maxError [sumLanes]float64
}

// add counts weights, which begin at a multiple of sumLanes columns within their
// group, and what they were decoded to.
func (l *laneSums) add(weights, decoded []float32) {
	decoded = decoded[:len(weights)]
	for i, weight := range weights {
		w, d := float64(weight), float64(decoded[i])
		e := w - d
		lane := i % sumLanes
		l.error[lane] += float64(e * e)
		l.weight[lane] += float64(w * w)
		l.decoded[lane] += float64(d * d)
		l.product[lane] += float64(w * d)
		if e = math.Abs(e); e > l.maxError[lane] {
			l.maxError[lane] = e
		}
	}
}

// total adds up the lanes in pairs, then pairs of pairs.
func (l *laneSums) total() Sums {
	return Sums{
		Error:    addLanes(&l.error),
		Weight:   addLanes(&l.weight),
		Decoded:  addLanes(&l.decoded),
		Product:  addLanes(&l.product),
		MaxError: slices.Max(l.maxError[:]),
	}
}

func addLanes(x *[sumLanes]float64) float64 {
	return ((x[0] + x[4]) + (x[2] + x[6])) + ((x[1] + x[5]) + (x[3] + x[7]))
}
