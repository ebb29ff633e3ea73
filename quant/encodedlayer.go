package quant

import (
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
	if len(values[0]) > 0 { // as other producers may have empty lists for nulls
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
	for i, level := range e.levels {
		if level != d.Levels[i] {
			return problemf(KindCorrupt, ": level %d is %g, encoding '%s' has %g", i, level, e.encoding, d.Levels[i])
		}
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

// superGroup is what some neighbouring groups share: 0 is none.
type superGroup struct {
	scale, minimum float32
	end            int // the first group behind it, or behind a part of it
}

// superGroupOf is that of a group.
func (e *encodedLayer) superGroupOf(l *quantizedLayer, group int) superGroup {
	groups := kernel.Groups(l.columns, l.groupSize)
	row, column := group/groups, group%groups
	at, end := 0, l.groups()
	switch d := e.description; {
	case e.groupSize == Blocks:
		at, end = row/kernel.BlockSize*groups+column, group+1
	case d.SuperSize > 0:
		super := column * l.groupSize / d.SuperSize
		at, end = row*d.SuperScales(l.columns)+super, row*groups+min(groups, (super+1)*d.SuperSize/l.groupSize)
	}
	of := superGroup{end: end}
	if len(e.superScales) > 0 {
		of.scale = float32At(e.superScales, at)
	}
	if e.description.Minimums {
		of.minimum = float32At(e.superMinimums, at)
	}
	return of
}

// groupFault is what is wrong with a group.
type groupFault uint8

const (
	noFault groupFault = iota
	infiniteScale
	infiniteZeroPoint
	otherZeroPoint
	unstoredScale
	unstoredMinimum
)

// fault tells what is wrong with a group: its scale and its zero-point have to be finite, and
// the scale, and the minimum, whole multiples of the super-scale, and the super-minimum, as far
// as the encoding stores such.
func (e *encodedLayer) fault(scale, zeroPoint float32, of *superGroup) groupFault {
	d := e.description
	switch {
	case !isFinite(scale):
		return infiniteScale
	case !isFinite(zeroPoint):
		return infiniteZeroPoint
	case !d.Minimums && zeroPoint != d.ZeroPoint:
		return otherZeroPoint
	case !d.IsScale(scale, of.scale) || e.groupSize.shared() && scale != of.scale:
		return unstoredScale
	case d.Minimums && !d.IsMinimum(scale, zeroPoint, of.minimum):
		return unstoredMinimum
	}
	return noFault
}

func (l *quantizedLayer) zeroPoint(group int) float32 {
	if l.zeroPoints == nil {
		return 0
	}
	return float32At(l.zeroPoints, group)
}

// run gives groups from first to end-1, or most of them, that can be looked at together, and what
// they have.
func (e *encodedLayer) run(l *quantizedLayer, first, end int) (begin, stop int, has kernel.StoredGroups) {
	d := e.description
	together := kernel.StoredTogether
	if d.SuperSize > 0 {
		together = d.SuperSize / l.groupSize
	}
	begin = (first + together - 1) / together * together
	stop = end / together * together
	if begin >= stop || e.groupSize.shared() || d.SuperSize > 0 && l.columns%d.SuperSize != 0 {
		return first, first, has
	}
	has = l.storedGroups(begin, stop)
	switch {
	case d.LayerScale:
		has.SuperScales = e.superScales
	case d.SuperSize > 0:
		has.SuperScales = e.superScales[4*begin/together : 4*stop/together]
		if d.Minimums {
			has.SuperMinimums = e.superMinimums[4*begin/together : 4*stop/together]
		}
	}
	return begin, stop, has
}

// storedGroups is what a layer has of some groups, but for what they share.
func (l *quantizedLayer) storedGroups(first, end int) kernel.StoredGroups {
	has := kernel.StoredGroups{Scales: l.scales[4*first : 4*end]}
	if l.zeroPoints != nil {
		has.ZeroPoints = l.zeroPoints[4*first : 4*end]
	}
	return has
}

// firstBadGroup is the first of some groups that has a fault, or -1.
func (e *encodedLayer) firstBadGroup(l *quantizedLayer, first, end int, k *kernel.Kernel) int {
	begin, stop, has := e.run(l, first, end)
	if begin < stop && l.largestLevel() <= kernel.MostLevel && k.AllStored(e.description, &has) {
		if group := e.firstFault(l, first, begin); group >= 0 {
			return group
		}
		first = stop
	}
	return e.firstFault(l, first, end)
}

// firstFault is firstBadGroup, which looks at each.
func (e *encodedLayer) firstFault(l *quantizedLayer, first, end int) int {
	most := l.largestLevel()
	for group := first; group < end; {
		of := e.superGroupOf(l, group)
		for stop := min(of.end, end); group < stop; group++ {
			scale, zeroPoint := float32At(l.scales, group), l.zeroPoint(group)
			if e.fault(scale, zeroPoint, &of) != noFault || !isFinite(reach(most, zeroPoint, scale)) && l.hasInfinite(group) {
				return group
			}
		}
	}
	return -1
}

// groupProblem says what is wrong with a group that has a fault.
func (e *encodedLayer) groupProblem(l *quantizedLayer, group int) *problem {
	scale, zeroPoint, of := float32At(l.scales, group), l.zeroPoint(group), e.superGroupOf(l, group)
	switch e.fault(scale, zeroPoint, &of) {
	case infiniteScale:
		return problemf(KindCorrupt, ": the scale of group %d is %g, it must be finite", group, scale)
	case infiniteZeroPoint:
		return problemf(KindCorrupt, ": the zero-point of group %d is %g, it must be finite", group, zeroPoint)
	case otherZeroPoint:
		return problemf(KindCorrupt, ": the zero-point of group %d is %g, encoding '%s' has %g", group, zeroPoint, e.encoding, e.description.ZeroPoint)
	case unstoredScale:
		return problemf(KindCorrupt, ": the scale of group %d is %g, which encoding '%s' does not store (super-scale %g)",
			group, scale, e.encoding, of.scale)
	case unstoredMinimum:
		return problemf(KindCorrupt, ": the minimum of group %d is %g, which encoding '%s' does not store (super-minimum %g)",
			group, zeroPoint*scale, e.encoding, of.minimum)
	default:
		return l.infiniteProblem(group)
	}
}
