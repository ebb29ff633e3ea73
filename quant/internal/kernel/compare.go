package kernel

import "math"

// Elements are weights as they lie in memory.
type Elements struct {
	Type  ElementType
	Bytes []byte
}

// Part is n elements from the first on.
func (e Elements) Part(first, n int) Elements {
	size := e.Type.Size()
	return Elements{e.Type, e.Bytes[first*size:][:n*size]}
}

func (e Elements) count() int { return len(e.Bytes) / e.Type.Size() }

// Compare adds up the errors of as many decoded weights, in the order in which
// Quantize does: a block of rows of so many columns gives the same sums. Where
// either has a weight that is NaN or Inf, the sums are undefined.
func Compare(original, decoded Elements, columns int) (sums Sums, inOriginal, inDecoded Fault) {
	var w, d [tileSize]float32
	var lanes laneSums
	for row := 0; row < original.count(); row += columns {
		for column := 0; column < columns; column += tileSize {
			n := min(tileSize, columns-column)
			load(w[:n], original.Part(row+column, n).Bytes, original.Type)
			load(d[:n], decoded.Part(row+column, n).Bytes, decoded.Type)
			lanes.add(w[:n], d[:n])
		}
	}
	sums = lanes.total()
	return sums, original.nonFinite(sums.Weight), decoded.nonFinite(sums.Decoded)
}

// nonFinite finds the first element that is NaN or Inf, given the sum of squares:
// those of finite weights are too small to add up to Inf.
func (e Elements) nonFinite(squares float64) Fault {
	if !math.IsNaN(squares) && !math.IsInf(squares, 1) {
		return Fault{}
	}
	var one [1]float32
	for i := range e.count() {
		if load(one[:], e.Part(i, 1).Bytes, e.Type); !isFinite(one[0]) {
			return Fault{Kind: NonFinite, Index: i, Value: one[0]}
		}
	}
	return Fault{}
}
