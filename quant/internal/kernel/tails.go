package kernel

import "math"

// Tails are sums over the weights of some columns of a matrix, which tell how heavy the tails
// of their distributions are.
type Tails struct {
	magnitudes, squares []float64
	row                 []float32
	rows                float64
}

// Reset begins with so many columns of a matrix.
func (t *Tails) Reset(columns int) {
	t.magnitudes = append(t.magnitudes[:0], make([]float64, columns)...)
	t.squares = append(t.squares[:0], make([]float64, columns)...)
	t.row = append(t.row[:0], make([]float32, columns)...)
	t.rows = 0
}

// Add counts a row.
func (t *Tails) Add(row []byte, element ElementType) {
	load(t.row, row, element)
	magnitudes, squares := t.magnitudes[:len(t.row)], t.squares[:len(t.row)]
	for i, weight := range t.row {
		w := float64(weight)
		magnitudes[i] += math.Abs(w)
		squares[i] += float64(w * w)
	}
	t.rows++
}

// Weight is r^2, r being the mean square of a column's weights over the square of their mean
// magnitude: 1 if they have one magnitude, pi/2 for a normal distribution, more with heavier
// tails. It is 1 for nothing but zeros, and if a weight is not finite.
func (t *Tails) Weight(column int) float64 {
	magnitude := t.magnitudes[column]
	r := float64(t.rows*t.squares[column]) / float64(magnitude*magnitude)
	if !(r > 1) {
		return 1
	}
	return float64(r * r)
}
