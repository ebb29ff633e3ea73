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
	sums       []tailSums
	magnitudes [tailRows][]float32 // of the last rows
	rows       int
}

type tailSums struct{ magnitude, square float64 }

// Reset begins with so many columns of a matrix.
func (t *Tails) Reset(columns int) {
	t.sums = slices.Grow(t.sums[:0], columns)[:columns]
	clear(t.sums)
	for i := range t.magnitudes {
		t.magnitudes[i] = slices.Grow(t.magnitudes[i][:0], columns)[:columns]
	}
	t.rows = 0
}

// Add counts a row.
func (t *Tails) Add(row []byte, element ElementType) {
	loadMagnitudes(t.magnitudes[t.rows%tailRows], row, element)
	if t.rows++; t.rows%tailRows == 0 {
		t.addRows()
	}
}

// End is after the last row.
func (t *Tails) End() {
	if rest := t.rows % tailRows; rest > 0 {
		for _, row := range t.magnitudes[rest:] {
			clear(row)
		}
		t.addRows()
	}
}

func (t *Tails) addRows() {
	sums := t.sums
	a, b, c, d := t.magnitudes[0][:len(sums)], t.magnitudes[1][:len(sums)], t.magnitudes[2][:len(sums)], t.magnitudes[3][:len(sums)]
	for i := range sums {
		w, x, y, z := a[i], b[i], c[i], d[i]
		sums[i].magnitude += float64(w + x + y + z)
		sums[i].square += float64(float32(w*w) + float32(x*x) + float32(y*y) + float32(z*z))
	}
}

// Weight is r^2, r being the mean square of a column's weights over the square of their mean
// magnitude: 1 if they have one magnitude, pi/2 for a normal distribution, more with heavier
// tails. It is 1 where squares are beyond float32, and for nothing but zeros.
func (t *Tails) Weight(column int) float64 {
	sum := t.sums[column]
	r := float64(float64(t.rows)*sum.square) / float64(sum.magnitude*sum.magnitude)
	if !(r > 1 && r <= math.MaxFloat32) {
		return 1
	}
	return float64(r * r)
}

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
