package kernel

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"testing"
)

// TestTailsAreOfAllRows has the sums of the definition, but for how it rounds, and the same ones
// of all kernels.
func TestTailsAreOfAllRows(t *testing.T) {
	random := rand.New(rand.NewPCG(6, 7))
	for _, element := range []ElementType{Float32, Float16, BFloat16, Float64} {
		for _, size := range [][2]int{{1, 1}, {1, 8}, {3, 9}, {4, 7}, {5, 16}, {64, 40}, {67, 61}, {128, 256}} {
			rows := make([][]byte, size[0])
			magnitude, square := make([]float64, size[1]), make([]float64, size[1])
			for i := range rows {
				rows[i] = make([]byte, size[1]*element.Size())
				for column := range size[1] {
					value := putElement(rows[i][column*element.Size():], element, random.NormFloat64())
					magnitude[column] += math.Abs(value)
					square[column] += value * value
				}
			}
			want := tailsOfRows(&Scalar, rows, size[1], element)
			for column := range size[1] {
				r := float64(size[0]) * square[column] / (magnitude[column] * magnitude[column])
				if got := want.Weight(column); math.Abs(got-max(r*r, 1)) > 1e-5*got {
					t.Fatalf("%v, %v: the weight of column %d is %g, want %g", element, size, column, got, r*r)
				}
			}
			for _, k := range All() {
				got := tailsOfRows(&k, rows, size[1], element)
				for column := range size[1] {
					if got.magnitudes[column] != want.magnitudes[column] || got.squares[column] != want.squares[column] {
						t.Fatalf("%s, %v, %v: column %d has the sums %g and %g, want %g and %g", k.Name, element, size,
							column, got.magnitudes[column], got.squares[column], want.magnitudes[column], want.squares[column])
					}
				}
			}
		}
	}
}

func tailsOfRows(k *Kernel, rows [][]byte, columns int, element ElementType) *Tails {
	t := k.NewTails()
	t.Reset(columns, element)
	for _, row := range rows {
		t.Add(row)
	}
	t.End()
	return t
}

// putElement stores a value, and tells what that became.
func putElement(out []byte, element ElementType, value float64) float64 {
	switch element {
	case Float64:
		binary.LittleEndian.PutUint64(out, math.Float64bits(float64(float32(value))))
	case Float32:
		binary.LittleEndian.PutUint32(out, math.Float32bits(float32(value)))
	case Float16:
		binary.LittleEndian.PutUint16(out, Float16Bits(float32(value)))
	default:
		binary.LittleEndian.PutUint16(out, BFloat16Bits(float32(value)))
	}
	return float64(Widen(out[:element.Size()], element)[0])
}

func BenchmarkTails(b *testing.B) {
	const columns, height = 256, 256
	rows := make([][]byte, height)
	for i := range rows {
		rows[i] = make([]byte, 4*columns)
	}
	for _, k := range All() {
		for element, name := range map[ElementType]string{Float32: "float32", BFloat16: "bfloat16"} {
			b.Run(k.Name+"/"+name, func(b *testing.B) {
				b.SetBytes(int64(columns * height * element.Size()))
				for b.Loop() {
					tailsOfRows(&k, rows, columns, element)
				}
			})
		}
	}
}
