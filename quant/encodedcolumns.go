package quant

import (
	"github.com/apache/arrow-go/v18/arrow"

	"github.com/pyarrowquant/pyarrowquant/quant/internal/kernel"
)

// The columns that a result has where a layer may have another encoding than "int".

var (
	encodedNames = []string{columnEncoding, columnLevels, columnSuperScales, columnSuperMinimums}
	encodedTypes = []arrow.DataType{
		arrow.BinaryTypes.String,
		arrow.ListOf(arrow.PrimitiveTypes.Float32), arrow.ListOf(arrow.PrimitiveTypes.Float32), arrow.ListOf(arrow.PrimitiveTypes.Float32),
	}
	encodedWidths = []int{1, 4, 4, 4} // of elements, in bytes

	encodedAccepts = []func(arrow.DataType) bool{isTextOrNull, isFloat32sOrNull, isFloat32sOrNull, isFloat32sOrNull}
)

func isTextOrNull(dt arrow.DataType) bool { return isText(dt) || dt.ID() == arrow.NULL }

func isFloat32sOrNull(dt arrow.DataType) bool { return isFloat32List(dt) || dt.ID() == arrow.NULL }

func encodedFields() (fields []arrow.Field) {
	for i, name := range encodedNames {
		fields = append(fields, arrow.Field{Name: name, Type: encodedTypes[i], Nullable: true})
	}
	return fields
}

// addEncodedSizes adds the sizes in the columns of encodedFields.
func (l *layer) addEncodedSizes(to *rowSizes) {
	encoded := to[sizeEncodings:]
	encoded[0] += len(l.settings.Encoding.String())
	d := l.settings.encoding
	if d == nil {
		return
	}
	supers := superScales(l.grouped, d, l.settings.GroupSize)
	encoded[1] += len(d.Levels)
	encoded[2] += supers
	if d.Minimums {
		encoded[3] += supers
	}
}

// superScales is how many a layer has.
func superScales(g grouped, d *kernel.Description, size GroupSize) int {
	switch {
	case d.LayerScale:
		return 1
	case size.shared():
		return size.sharedScales(g.matrix)
	default:
		return g.rows * d.SuperScales(g.columns)
	}
}

// hasZeroPoints tells whether not all zero-points are 0.
func hasZeroPoints(d *kernel.Description) bool { return d.Minimums || d.ZeroPoint != 0 }

func (p *quantizedPart) superScales() *variableColumn   { return p.encodings[2] }
func (p *quantizedPart) superMinimums() *variableColumn { return p.encodings[3] }

func (p *quantizedPart) makeEncodedColumns(m *resultMemory, rows int, total rowSizes) {
	p.zeroPoints = newNullableColumn(m, p.zeroPoints.dataType, 4, rows, total[sizeZeroPoints])
	for i, dataType := range encodedTypes {
		p.encodings = append(p.encodings, newNullableColumn(m, dataType, encodedWidths[i], rows, total[sizeEncodings+i]))
	}
}

// describeEncoding writes what does not depend on weights of a row, which begins at some
// elements. Rows of "int" have an encoding, too, and nothing else.
func (p *quantizedPart) describeEncoding(row int, l *layer, at rowSizes) {
	d := l.settings.encoding
	p.zeroPoints.null[row] = d != nil && !hasZeroPoints(d)
	for i, c := range p.encodings {
		c.setOffset(row, at[sizeEncodings+i])
	}
	p.encodings[0].null[row] = false
	copy(p.encodings[0].values.Bytes()[at[sizeEncodings]:], l.settings.Encoding.String())
	if d == nil {
		return
	}
	p.encodings[1].null[row] = d.Levels == nil
	copy(arrow.Float32Traits.CastFromBytes(p.encodings[1].values.Bytes())[at[sizeEncodings+1]:], d.Levels)
	p.encodings[2].null[row] = d.SuperSize == 0 && !d.LayerScale && !l.settings.GroupSize.shared()
	p.encodings[3].null[row] = !d.Minimums
}
