package quant

import (
	"math"

	"github.com/pyarrowquant/pyarrowquant/quant/internal/kernel"
)

// Finite scales and zero-points may decode to weights that are not: of 3e38, for one. No
// quantization gives such.

// largestLevel is the largest magnitude that a code of the layer stands for.
func (l *quantizedLayer) largestLevel() float32 {
	if l.encoded == nil || l.encoded.levels == nil {
		return float32(int(1)<<l.bitWidth - 1)
	}
	var most float32
	for _, level := range l.encoded.levels {
		most = max(most, level, -level)
	}
	return most
}

// reach is no less than the magnitude of any weight of a group, rounded as that is: all are
// finite if it is, and so are scale and zero-point.
func reach(largestLevel, zeroPoint, scale float32) float32 {
	return float32((largestLevel + magnitude(zeroPoint)) * magnitude(scale))
}

func magnitude(x float32) float32 { return math.Float32frombits(math.Float32bits(x) &^ (1 << 31)) }

// firstInfinite decodes a group, and returns the first of its weights that is not finite, by its
// index in the layer, or -1.
func (l *quantizedLayer) firstInfinite(group int) (index int, value float32) {
	groups := kernel.Groups(l.columns, l.groupSize)
	u := unit{row: group / groups, column: group % groups * l.groupSize, rows: 1}
	u.columns = min(l.groupSize, l.columns-u.column)
	weights := make([]byte, 4*u.columns)
	var block kernel.CodedBlock
	l.fill(&block, &u, weights, kernel.Float32)
	kernel.Scalar.Dequantize(&block)
	for i := range u.columns {
		if value = float32At(weights, i); !isFinite(value) {
			return u.firstElement(l.grouped) + i, value
		}
	}
	return -1, 0
}

// hasInfinite tells whether a group has a weight that is not finite, as all are whose scale or
// zero-point is not.
func (l *quantizedLayer) hasInfinite(group int) bool {
	index, _ := l.firstInfinite(group)
	return index >= 0
}

func (l *quantizedLayer) infiniteProblem(group int) *problem {
	index, value := l.firstInfinite(group)
	return problemf(KindNonFinite, ": the weight at index %d decodes to %s, as its group has the scale %g and the zero-point %g. Quantize the layer again",
		index, nonFiniteText(value), float32At(l.scales, group), l.zeroPoint(group)).at(int64(index))
}
