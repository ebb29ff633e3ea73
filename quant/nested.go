package quant

import (
	"slices"

	"github.com/apache/arrow-go/v18/arrow"
)

// Weights may be lists of lists, as other programs keep matrices: the rows of a table's
// layer then have to be of one length, and to lie one behind the other, so that the
// values are the layer in row-major order as they are.

// isNestedList tells whether a type is a list of floats, or of such lists.
func isNestedList(dt arrow.DataType) bool {
	list, ok := dt.(arrow.ListLikeType)
	return isFloatList(dt) || ok && dt.ID() != arrow.MAP && isNestedList(list.Elem())
}

// innermost is the reader of the lists that have values.
func (r *listReader) innermost() *listReader {
	for r.inner != nil {
		r = r.inner
	}
	return r
}

// tensor gives the bytes of all values of a row, and appends to dims how long its lists
// are, from the outermost on.
func (r *listReader) tensor(dims []int64, row int) ([]byte, []int64, *problem) {
	if r.isNull(row) {
		return nil, dims, problemf(KindNull, ": %s is null", r.column)
	}
	start, end := r.span(row)
	if p := checkSpan(r.column, start, end, r.count); p != nil {
		return nil, dims, p
	}
	dims = append(dims, end-start)
	for ; r.inner != nil; r = r.inner {
		if r.nullElements.firstNull(start, end) >= 0 {
			return nil, dims, problemf(KindNull, " has a list in %s that is null. Fill it, or leave the layer out", r.column)
		}
		var length int64
		var p *problem
		if start, end, length, p = r.inner.joined(start, end); p != nil {
			return nil, dims, p
		}
		dims = append(dims, length)
	}
	raw, p := r.between(start, end)
	return raw, dims, p
}

// joined gives the elements of the lists first .. last-1, which must be of one length and
// follow each other, and that length.
func (r *listReader) joined(first, last int64) (start, end, length int64, p *problem) {
	if first == last {
		return 0, 0, max(r.size, 0), nil
	}
	for i := first; i < last; i++ {
		from, to := r.span(int(i))
		if p := checkSpan(r.column, from, to, r.count); p != nil {
			return 0, 0, 0, p
		}
		if i == first {
			start, end, length = from, from, to-from
		}
		if to-from != length {
			return 0, 0, 0, problemf(KindShapeMismatch, ": Shape mismatch: a list in %s has %d elements, and the one at its index %d has %d. All must be of one length",
				r.column, length, i-first, to-from)
		}
		if from != end && length > 0 {
			return 0, 0, 0, problemf(KindShapeMismatch, ": Shape mismatch: the lists in %s do not lie one behind the other. Cast the column to list", r.column)
		}
		end = to
	}
	if length == 0 {
		end = start // views of nothing may lie anywhere
	}
	return start, end, length, nil
}

// agree compares the shape that nested lists have with the one that a column gives.
func agree(nested, given []int64) *problem {
	// Lists of no lists have no length.
	if slices.Equal(nested, given) || slices.Contains(nested, 0) && slices.Contains(given, 0) {
		return nil
	}
	return problemf(KindShapeMismatch, ": Shape mismatch: shape is %s, and weights are lists of shape %s", shapeText(given), shapeText(nested))
}
