package quant

import (
	"math"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/pyarrowquant/pyarrowquant/quant/internal/kernel"
)

// encodedLayer is what a row of a result has of another encoding than "int".
type encodedLayer struct {
	encoding                   Encoding
	description                *kernel.Description
	levels                     []float32 // nil: 0 .. 2^b-1
	superScales, superMinimums []byte    // little-endian float32
	groupSize                  GroupSize // what shares a scale
}

// encodedReader reads the columns encodedNames of one batch.
type encodedReader struct {
	encodings    textReader
	encodingNull validity
	lists        [3]*listReader // levels, super-scales, super-minimums; nil: no such column
}

func newEncodedReader(batch arrow.RecordBatch, columns [4]int) *encodedReader {
	arr := batch.Column(columns[0])
	r := &encodedReader{encodings: newTextReader(columnEncoding, arr), encodingNull: validityOf(arr)}
	for i, at := range columns[1:] {
		if at >= 0 {
			r.lists[i] = newListReader(encodedNames[1+i], batch.Column(at))
		}
	}
	return r
}

// read gives what a row has, nil for "int", which null is, too.
func (r *encodedReader) read(row int) (*encodedLayer, *problem) {
	if r.encodingNull.isNull(row) {
		return nil, nil
	}
	name, p := r.encodings(row)
	if p != nil {
		return nil, p
	}
	l := &encodedLayer{}
	if err := l.encoding.UnmarshalText([]byte(name)); err != nil {
		return nil, problemf(KindCorrupt, ": encoding '%s' is unknown. It may be of a later version of pyarrowquant", name)
	}
	if l.description = l.encoding.describe(); l.description == nil {
		return nil, nil
	}
	var values [3][]byte
	for i, list := range r.lists {
		if list == nil || list.isNull(row) {
			continue
		}
		if values[i], p = list.values(row); p != nil {
			return nil, p
		}
	}
	if values[0] != nil {
		l.levels = make([]float32, len(values[0])/4)
		for i := range l.levels {
			l.levels[i] = float32At(values[0], i)
		}
	}
	l.superScales, l.superMinimums = values[1], values[2]
	return l, nil
}

// check compares what the encoding fixes with what the row has, its group size as it says it.
func (e *encodedLayer) check(l *quantizedLayer, groupSize int64) *problem {
	d := e.description
	if l.bitWidth != d.BitWidth {
		return problemf(KindCorrupt, ": bit_width is %d, encoding '%s' has %d", l.bitWidth, e.encoding, d.BitWidth)
	}
	if d.GroupSize != 0 && groupSize != int64(d.GroupSize) {
		return problemf(KindCorrupt, ": group_size is %d, encoding '%s' has %d", groupSize, e.encoding, d.GroupSize)
	}
	e.groupSize = GroupSize(groupSize)
	if d.Shares && len(e.superScales) > 0 { // which they are then, one for all rows or blocks that share it
		for _, shared := range []GroupSize{WholeTensor, Blocks} {
			if shared.inRow() == int(groupSize) {
				e.groupSize = shared
			}
		}
	}
	if len(e.levels) != len(d.Levels) {
		return problemf(KindCorrupt, ": levels has %d values, encoding '%s' has %d", len(e.levels), e.encoding, len(d.Levels))
	}
	if i := slices.IndexFunc(e.levels, func(x float32) bool { return math.IsInf(float64(x), 0) }); i >= 0 {
		return problemf(KindCorrupt, ": level %d is %g, it must be finite", i, e.levels[i])
	}
	if l.zeroPoints == nil && hasZeroPoints(d) && l.elements() > 0 {
		return problemf(KindNull, ": %s is null, encoding '%s' needs them", columnZeroPoints, e.encoding)
	}
	wanted := superScales(l.grouped, d, e.groupSize)
	if err := checkSuperCount(columnSuperScales, e.superScales, wanted); err != nil {
		return err
	}
	if !d.Minimums {
		wanted = 0
	}
	return checkSuperCount(columnSuperMinimums, e.superMinimums, wanted)
}

func checkSuperCount(column string, values []byte, wanted int) *problem {
	if len(values) != 4*wanted {
		return problemf(KindCorrupt, ": %s has %d values, the layer needs %d", column, len(values)/4, wanted)
	}
	return nil
}

// superScaleOf is the position of a group's super-scale.
func (e *encodedLayer) superScaleOf(l *quantizedLayer, group int) int {
	groups := kernel.Groups(l.columns, l.groupSize)
	if e.groupSize == Blocks {
		return group/groups/kernel.BlockSize*groups + group%groups
	}
	if e.description.SuperSize == 0 {
		return 0
	}
	return group/groups*e.description.SuperScales(l.columns) + group%groups*l.groupSize/e.description.SuperSize
}

// groupProblem says what is wrong with a group, or nil: its scale and its zero-point have to
// be finite, and the scale, and the minimum, whole multiples of the super-scale, and the
// super-minimum, as far as the encoding stores such.
func (e *encodedLayer) groupProblem(l *quantizedLayer, group int) *problem {
	scale, zeroPoint := float32At(l.scales, group), float32(0)
	if l.zeroPoints != nil {
		zeroPoint = float32At(l.zeroPoints, group)
	}
	if !isFinite(scale) {
		return problemf(KindCorrupt, ": the scale of group %d is %g, it must be finite", group, scale)
	}
	if !isFinite(zeroPoint) {
		return problemf(KindCorrupt, ": the zero-point of group %d is %g, it must be finite", group, zeroPoint)
	}
	d := e.description
	if !d.Minimums && zeroPoint != d.ZeroPoint {
		return problemf(KindCorrupt, ": the zero-point of group %d is %g, encoding '%s' has %g", group, zeroPoint, e.encoding, d.ZeroPoint)
	}
	at := e.superScaleOf(l, group)
	superScale := float32(0)
	if len(e.superScales) > 0 {
		superScale = float32At(e.superScales, at)
	}
	if !d.IsScale(scale, superScale) || e.groupSize.shared() && scale != superScale {
		return problemf(KindCorrupt, ": the scale of group %d is %g, which encoding '%s' does not store (super-scale %g)",
			group, scale, e.encoding, superScale)
	}
	if d.Minimums {
		if superMinimum := float32At(e.superMinimums, at); !d.IsMinimum(scale, zeroPoint, superMinimum) {
			return problemf(KindCorrupt, ": the minimum of group %d is %g, which encoding '%s' does not store (super-minimum %g)",
				group, zeroPoint*scale, e.encoding, superMinimum)
		}
	}
	return nil
}
