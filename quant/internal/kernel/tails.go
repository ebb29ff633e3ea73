package kernel

import (
	"encoding/binary"
	"math"
	"slices"
)

// tailRows are the rows of which float32 sums are made, before float64 ones.
const tailRows = 4

// Tails are sums over the weights of some columns of a matrix, which tell how heavy the tails
// of their distributions are.
type Tails struct {
	adders              [vectorElements]addTails
	element             ElementType
	magnitudes, squares []float64        // sums, by column
	last                [tailRows][]byte // rows that are not yet in them
	widened             [tailRows][]float32
	rows                int
}

// addTails adds tailRows rows to the sums of a number of columns that is a multiple of 8.
type addTails func(magnitudes, squares *float64, rows **byte, columns int)

// NewTails makes sums for a Reset.
func (k *Kernel) NewTails() *Tails { return &Tails{adders: k.addTails} }

// Reset begins with so many columns of a matrix.
func (t *Tails) Reset(columns int, element ElementType) {
	t.element, t.rows = element, 0
	t.magnitudes, t.squares = cleared(t.magnitudes, columns), cleared(t.squares, columns)
	for i := range t.widened {
		t.widened[i] = cleared(t.widened[i], columns)
	}
}

func cleared[T any](x []T, n int) []T {
	x = slices.Grow(x[:0], n)[:n]
	clear(x)
	return x
}

// Add counts a row, which is read until End.
func (t *Tails) Add(row []byte) {
	t.last[t.rows%tailRows] = row
	if t.rows++; t.rows%tailRows == 0 {
		t.addRows()
	}
}

// End is after the last row.
func (t *Tails) End() {
	if rest := t.rows % tailRows; rest > 0 {
		zeros := make([]byte, len(t.last[0]))
		for i := rest; i < tailRows; i++ {
			t.last[i] = zeros
		}
		t.addRows()
	}
}

func (t *Tails) addRows() {
	whole := t.addEights()
	magnitudes := t.magnitudes[whole:]
	squares := t.squares[whole:][:len(magnitudes)]
	for i, row := range t.last {
		loadMagnitudes(t.widened[i][:len(magnitudes)], row[whole*t.element.Size():], t.element)
	}
	a, b, c, d := t.widened[0][:len(magnitudes)], t.widened[1][:len(magnitudes)], t.widened[2][:len(magnitudes)], t.widened[3][:len(magnitudes)]
	for i := range magnitudes {
		w, x, y, z := a[i], b[i], c[i], d[i]
		magnitudes[i] += float64(w + x + y + z)
		squares[i] += float64(float32(w*w) + float32(x*x) + float32(y*y) + float32(z*z))
	}
}

// addEights adds as many columns as there is a function for.
func (t *Tails) addEights() (columns int) {
	columns = len(t.magnitudes) &^ 7
	if columns == 0 || t.element >= vectorElements || t.adders[t.element] == nil {
		return 0
	}
	var rows [tailRows]*byte
	for i := range rows {
		rows[i] = &t.last[i][:columns*t.element.Size()][0]
	}
	t.adders[t.element](&t.magnitudes[0], &t.squares[0], &rows[0], columns)
	return columns
}

// Weight is r^2, r being the mean square of a column's weights over the square of their mean
// magnitude: 1 if they have one magnitude, pi/2 for a normal distribution, more with heavier
// tails. It is 1 where squares are beyond float32, and for nothing but zeros.
func (t *Tails) Weight(column int) float64 {
	magnitude := t.magnitudes[column]
	r := float64(float64(t.rows)*t.squares[column]) / float64(magnitude*magnitude)
	if !(r > 1 && r <= math.MaxFloat32) {
		return 1
	}
	return float64(r * r)
}

// Magnitude is the sum of the magnitudes of a column's weights.
func (t *Tails) Magnitude(column int) float64 { return t.magnitudes[column] }

// loadMagnitudes widens len(out) elements of src without their signs. They are finite, or the
// layer has a fault.
func loadMagnitudes(out []float32, src []byte, t ElementType) {
	switch t {
	case Float32:
		for i := range out {
			out[i] = math.Float32frombits(binary.LittleEndian.Uint32(src[i*4:]) &^ signBit)
		}
	case Float16:
		for i := range out {
			bits := uint32(binary.LittleEndian.Uint16(src[i*2:]) & 0x7fff)
			out[i] = math.Float32frombits(bits<<13) * 0x1p112
		}
	case BFloat16:
		for i := range out {
			out[i] = math.Float32frombits(uint32(binary.LittleEndian.Uint16(src[i*2:])&0x7fff) << 16)
		}
	case Float64:
		for i := range out {
			out[i] = abs(float32(math.Float64frombits(binary.LittleEndian.Uint64(src[i*8:]))))
		}
	}
}
