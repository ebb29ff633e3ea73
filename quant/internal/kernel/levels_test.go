package kernel

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestLevelsOfTables decodes all codes of levels as encodings have them, and of others that a
// table may hold, by the formula: (level - zero-point) * scale, each step rounded to float32.
func TestLevelsOfTables(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	numbers := func(n int) []float32 {
		levels := make([]float32, n)
		for i := range levels {
			levels[i] = float32(random.NormFloat64())
		}
		return levels
	}
	otherwise := slices.Clone(e4m3Levels)
	otherwise[0x7f] = 480
	withoutSign := slices.Clone(e4m3Levels)
	withoutSign[0x80] = 0 // as equal as numbers can be
	for name, levels := range map[string][]float32{
		"E4M3": slices.Clone(e4m3Levels), "E2M1": e2m1Levels, "IQ4": iq4Levels, "NF4": nf4Levels,
		"16": numbers(16), "256": numbers(256), "nearly E4M3": otherwise, "E4M3 without -0": withoutSign,
	} {
		bitWidth := map[int]int{16: 4, 256: 8}[len(levels)]
		for _, groupSize := range []int{8, 16, 24, 32, 56, 64, 128, 300} {
			for misalignment := range 3 {
				checkLevels(t, fmt.Sprintf("%s, groups of %d", name, groupSize), levels, bitWidth, groupSize, misalignment, random)
			}
		}
	}
}

func checkLevels(t *testing.T, name string, levels []float32, bitWidth, groupSize, misalignment int, random *rand.Rand) {
	t.Helper()
	const rows, columns = 3, 520
	codes := make([]uint8, rows*columns)
	for i := range codes {
		codes[i] = uint8(i * 7 % len(levels))
	}
	groups := Groups(columns, groupSize)
	scales, zeroPoints := make([]float32, rows*groups), make([]float32, rows*groups)
	for i := range scales {
		scales[i] = float32(random.NormFloat64()) * []float32{1, 1e-37, 1e30, 0}[random.IntN(4)]
		zeroPoints[i] = float32(random.IntN(3)) * float32(random.NormFloat64())
	}
	for _, k := range All() {
		weights := newGuarded(4*rows*columns, misalignment)
		block := CodedBlock{
			BitWidth: bitWidth, Rows: rows, Columns: columns, GroupSize: groupSize, Levels: levels, Type: Float32,
			Packed: make([]byte, rows*RowBytes(columns, bitWidth)), Scales: rawFloat32(scales), ZeroPoints: rawFloat32(zeroPoints),
			Weights: weights.inner,
		}
		for row := range rows {
			pack(block.Packed[row*RowBytes(columns, bitWidth):][:RowBytes(columns, bitWidth)], codes[row*columns:(row+1)*columns], bitWidth)
		}
		k.Dequantize(&block)
		if !weights.intact() {
			t.Fatalf("%s, %s: written outside", k.Name, name)
		}
		for i, code := range codes {
			group := i/columns*groups + i%columns/groupSize
			moved := levels[code] - zeroPoints[group]
			want := binary.LittleEndian.AppendUint32(nil, math.Float32bits(moved*scales[group]))
			if got := weights.inner[4*i : 4*i+4]; !bytes.Equal(got, want) {
				t.Fatalf("%s, %s: code %d decodes to %x, want %x", k.Name, name, code, got, want)
			}
		}
	}
}
