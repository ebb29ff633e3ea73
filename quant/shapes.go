package quant

import (
	"fmt"
	"math/bits"
	"slices"
	"strings"
)

// matrix is the row-major form of a layer's shape. An empty layer is 0 x 0.
type matrix struct {
	rows, columns int
}

func (m matrix) elements() int { return m.rows * m.columns }

// elementCount multiplies the dimensions; none may be negative and the product
// must fit in an int64.
func elementCount(shape []int64) (int64, *problem) {
	empty := false
	for _, d := range shape {
		if d < 0 {
			return 0, problemf(KindShapeMismatch, ": Shape mismatch: shape %s has the negative dimension %d", shapeText(shape), d)
		}
		empty = empty || d == 0
	}
	if empty {
		return 0, nil
	}
	count := uint64(1)
	for _, d := range shape {
		high, low := bits.Mul64(count, uint64(d))
		if high != 0 || low > 1<<63-1 {
			return 0, problemf(KindShapeMismatch, ": Shape mismatch: shape %s has more than 2^63-1 elements", shapeText(shape))
		}
		count = low
	}
	return int64(count), nil
}

func matrixOf(shape []int64, elements int64) matrix {
	if elements == 0 {
		return matrix{}
	}
	if len(shape) < 2 {
		return matrix{rows: 1, columns: int(elements)}
	}
	return matrix{rows: int(shape[0]), columns: int(elements / shape[0])}
}

func shapeText(shape []int64) string {
	return strings.ReplaceAll(fmt.Sprint(shape), " ", ", ")
}

// otherMatrices tells whether shapes of as many elements have other rows and columns. Dimensions of
// 1, and several that one of the shapes has as one, make no difference.
func otherMatrices(a, b []int64) bool {
	isOne := func(size int64) bool { return size == 1 }
	a, b = slices.DeleteFunc(slices.Clone(a), isOne), slices.DeleteFunc(slices.Clone(b), isOne)
	return len(a) == len(b) && !slices.Equal(a, b)
}
