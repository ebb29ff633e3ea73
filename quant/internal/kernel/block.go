package kernel

import "fmt"

// Block is the input and the output of one call to quantize: whole rows of a
// layer, or whole groups of one row. All slices have exactly the size that
// Rows, Columns and GroupSize say; none of them needs any alignment.
type Block struct {
	Format
	Type      ElementType
	Rows      int
	Columns   int
	GroupSize int    // 1 .. Columns, a multiple of 8 unless it is Columns
	Weights   []byte // Rows*Columns elements, row-major
	// Importance weighs the squared errors of the columns for MeanSquares: Columns
	// values of 0 .. 1, or nil. In a stack of matrices it has Stack.Columns for each of them.
	Importance []float32
	Stack      Stack

	Packed     []byte    // Rows*RowBytes(Columns, BitWidth)
	Scales     []float32 // Rows*Groups(Columns, GroupSize)
	ZeroPoints []float32 // as Scales; may be nil for an encoding that has 0 for all
	// SuperScales and SuperMinimums are Rows*Description.SuperScales(Columns), or nil.
	SuperScales, SuperMinimums []float32
	LayerScale                 float32 // given, where the encoding has one
	// Shared is the scale of all groups, which Scales has already, or nil: they are to be chosen.
	Shared     *SharedScale
	Sums       *Sums // nil: no error sums wanted
	Underflows int   // groups whose scale, as it is stored, is rounded to 0
	// Stop tells a search to give up, since nobody wants its outputs any more; nil: never.
	Stop func() bool
}

// Stack says where a block lies in a layer of matrices that have an importance each. No group
// is in two rows of a matrix.
type Stack struct {
	First    int // element of the layer that the block begins with
	Columns  int // of a matrix
	Elements int // of a matrix; 0: the importance is that of the block's own columns
}

func (b *Block) stopped() bool { return b.Stop != nil && b.Stop() }

// check panics if a slice has not the size that the kernels rely on.
func (b *Block) check() {
	zeroPoints := len(b.ZeroPoints)
	if b.Encoding != Integer && b.ZeroPoints == nil {
		zeroPoints = len(b.Scales)
	}
	b.layout().check(len(b.Weights), b.Type, len(b.Packed), len(b.Scales), zeroPoints)
	if b.Importance != nil && b.Stack.Elements == 0 && len(b.Importance) != b.Columns {
		panic(fmt.Sprintf("kernel: block of %d columns with the importance of %d", b.Columns, len(b.Importance)))
	}
}

func (b *Block) layout() layout {
	return layout{b.Rows, b.Columns, b.GroupSize, b.BitWidth}
}

// ImportanceOf is the place of an element's importance.
func (s Stack) ImportanceOf(element int) int {
	return element/s.Elements*s.Columns + element%s.Columns
}

// importance is that of n weights of one row, or nil.
func (b *Block) importance(weight, n int) []float32 {
	if b.Importance == nil {
		return nil
	}
	return b.ofColumns(b.Importance, weight, n)
}

// ofColumns is what n weights of one row have of values that are laid out as importance.
func (b *Block) ofColumns(values []float32, weight, n int) []float32 {
	if m := b.Stack; m.Elements > 0 {
		return values[m.ImportanceOf(m.First+weight):][:n]
	}
	return values[weight%b.Columns:][:n]
}

// untilNextMatrixRow is how many weights there are from one on before another row of a stack's
// matrices begins, or a whole row of the block.
func (b *Block) untilNextMatrixRow(weight int) int {
	if b.Stack.Elements == 0 {
		return b.Columns
	}
	return b.Stack.Columns - (b.Stack.First+weight)%b.Stack.Columns
}

// CodedBlock is the input and the output of one call to dequantize.
type CodedBlock struct {
	BitWidth   int
	Rows       int
	Columns    int
	GroupSize  int
	Packed     []byte
	Scales     []byte // little-endian float32, one a group
	ZeroPoints []byte // as Scales; nil: all are 0
	// Levels are what the codes stand for, 2^BitWidth of them, or nil: 0 .. 2^BitWidth-1.
	Levels []float32

	Type    ElementType // Float32 or Float16
	Weights []byte      // Rows*Columns elements
}

// check panics if a slice has not the size that the kernels rely on.
func (b *CodedBlock) check() {
	zeroPoints := len(b.ZeroPoints)
	if b.ZeroPoints == nil {
		zeroPoints = len(b.Scales)
	}
	b.layout().check(len(b.Weights), b.Type, len(b.Packed), len(b.Scales)/4, zeroPoints/4)
	if b.Levels != nil && len(b.Levels) != 1<<b.BitWidth {
		panic(fmt.Sprintf("kernel: block of %d bits with %d levels", b.BitWidth, len(b.Levels)))
	}
}

func (b *CodedBlock) layout() layout {
	return layout{b.Rows, b.Columns, b.GroupSize, b.BitWidth}
}

// layout is what sizes and positions within a block follow from. Its four words
// are as many as Go keeps in registers.
type layout struct {
	rows, columns, groupSize, bitWidth int
}

func (l layout) check(weights int, t ElementType, packed, scales, zeroPoints int) {
	groups := l.rows * Groups(l.columns, l.groupSize)
	if weights != l.rows*l.columns*t.Size() || packed != l.rows*RowBytes(l.columns, l.bitWidth) || scales != groups || zeroPoints != groups {
		panic(fmt.Sprintf("kernel: block %+v with %d bytes of weights, %d packed, %d scales, %d zero-points", l, weights, packed, scales, zeroPoints))
	}
}

// joined is the same block with its rows as one, if no group or byte of packed
// codes ends with a row.
func (l layout) joined() layout {
	if l.columns%l.groupSize == 0 && l.groupSize%8 == 0 {
		l.rows, l.columns = 1, l.rows*l.columns
	}
	return l
}

// position is where a group begins, counted from the block's begin.
type position struct {
	weight int // elements
	packed int // bytes
	group  int
}

// row is where a row begins.
func (l layout) row(i int) position {
	return position{i * l.columns, i * RowBytes(l.columns, l.bitWidth), i * Groups(l.columns, l.groupSize)}
}

// after moves past some groups that have n weights in all.
func (p position) after(n, groups, bitWidth int) position {
	return position{p.weight + n, p.packed + RowBytes(n, bitWidth), p.group + groups}
}

// FaultKind says why a block cannot be coded or decoded.
type FaultKind uint8

const (
	NoFault    FaultKind = iota
	NonFinite            // a weight is NaN or Inf
	ScaleRange           // ScaleDtype rounds a group's scale to Inf
	Overflow             // a decoded weight is beyond the output type
)

// Fault is the first fault of a block. Outputs of the block are then undefined.
type Fault struct {
	Kind  FaultKind
	Index int     // element within the block
	Value float32 // the weight, the unrounded scale, or the decoded weight
}
