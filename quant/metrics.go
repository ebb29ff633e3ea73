package quant

import (
	"math"

	"github.com/pyarrowquant/pyarrowquant/quant/internal/kernel"
)

// signalToNoise is the ratio of the squared weights to the squared errors, in
// decibels: Inf where there is no error.
func signalToNoise(s kernel.Sums) float64 {
	if s.Error == 0 {
		return math.Inf(1)
	}
	return 10 * math.Log10(s.Weight/s.Error)
}

// errorMetrics are the values of comparisonColumns, in their order, of which
// metricColumns are the first: mean squared error; ||w-d||/||w||; cosine of w and
// d; largest |w-d|; signal to noise; ||w||. A layer that is empty or all zeros has
// relative error 0 and cosine 1.
func errorMetrics(s kernel.Sums, elements int) [6]float64 {
	if elements == 0 {
		return [6]float64{0, 0, 1, 0, signalToNoise(s), 0}
	}
	weight, decoded := math.Sqrt(s.Weight), math.Sqrt(s.Decoded)
	relative, cosine := 0.0, 0.0
	if s.Error > 0 {
		relative = math.Sqrt(s.Error) / weight
	}
	switch {
	case weight > 0 && decoded > 0:
		cosine = max(-1, min(1, s.Product/(weight*decoded))) // sums are rounded
	case weight == decoded:
		cosine = 1
	}
	return [6]float64{s.Error / float64(elements), relative, cosine, s.MaxError, signalToNoise(s), weight}
}

// measuredErrors are the values of measuredColumns, in their order: the errors of a layer, then the
// mean squared error, the relative error and the cosine with columns weighed. That mean squared
// error is the one of weights of the same norm that have that relative error.
func measuredErrors(s, weighed kernel.Sums, elements int) (errors [9]float64) {
	plain, columns := errorMetrics(s, elements), errorMetrics(weighed, elements)
	copy(errors[:], plain[:])
	errors[6], errors[7], errors[8] = columns[0], columns[1], columns[2]
	if weighed.Weight > 0 {
		errors[6] *= s.Weight / weighed.Weight
	}
	return errors
}
