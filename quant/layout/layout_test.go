package layout

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/pyarrowquant/pyarrowquant/quant"
	"github.com/pyarrowquant/pyarrowquant/quant/internal/kernel"
)

// made is a layer of random codes, one a byte, and its packed form.
func made(rows, groups, bitWidth int) (Layer, []byte) {
	random := rand.New(rand.NewPCG(uint64(rows), uint64(bitWidth)))
	l := Layer{Rows: rows, Groups: groups, RowBytes: 4 * bitWidth * groups, BitWidth: bitWidth}
	codes := make([]byte, rows*groups*blockSize)
	l.Codes = make([]byte, rows*l.RowBytes)
	for i := range codes {
		codes[i] = byte(random.IntN(1 << bitWidth))
		for bit := range bitWidth {
			at := i*bitWidth + bit
			l.Codes[at/8] |= codes[i] >> bit & 1 << (at % 8)
		}
	}
	for range rows * groups {
		l.Scales = append(l.Scales, random.Float32()-0.5)
		l.ZeroPoints = append(l.ZeroPoints, float32(random.IntN(1<<bitWidth)))
	}
	return l, codes
}

// blockCodes reads the codes of a block as ggml does.
func blockCodes(block []byte, bitWidth int) []byte {
	codes := make([]byte, blockSize)
	if bitWidth == 8 {
		for i, code := range block {
			codes[i] = byte(int8(code)) + 128
		}
		return codes
	}
	var fifths uint32
	if bitWidth == 5 {
		fifths = binary.LittleEndian.Uint32(block)
		block = block[4:]
	}
	for i := range blockSize / 2 {
		codes[i] = block[i]&15 | byte(fifths>>i&1<<4)
		codes[i+16] = block[i]>>4 | byte(fifths>>(i+16)&1<<4)
	}
	return codes
}

func TestBlocks(t *testing.T) {
	for _, bitWidth := range []int{4, 5, 8} {
		for _, symmetric := range []bool{true, false} {
			if bitWidth == 8 && !symmetric {
				continue
			}
			l, codes := made(37, 5, bitWidth)
			header := 2
			if !symmetric {
				header = 4
			}
			size := header + 4*bitWidth
			for _, threads := range []int{1, 3} {
				out := make([]byte, size*l.Rows*l.Groups)
				if err := Blocks(out, l, symmetric, threads); err != nil {
					t.Fatal(err)
				}
				for i := range l.Rows * l.Groups {
					block := out[size*i : size*(i+1)]
					if got := binary.LittleEndian.Uint16(block); got != kernel.Float16Bits(l.Scales[i]) {
						t.Fatalf("%d bits: scale %d is %x", bitWidth, i, got)
					}
					bias := kernel.Float16Bits(-l.ZeroPoints[i] * l.Scales[i])
					if !symmetric && binary.LittleEndian.Uint16(block[2:]) != bias {
						t.Fatalf("%d bits: bias %d", bitWidth, i)
					}
					if got := blockCodes(block[header:], bitWidth); !bytes.Equal(got, codes[i*blockSize:(i+1)*blockSize]) {
						t.Fatalf("%d bits: block %d has %v", bitWidth, i, got)
					}
				}
			}
		}
	}
}

func TestZeroPointsAreBitStreams(t *testing.T) {
	for _, bitWidth := range []int{2, 3, 4, 5, 6, 8} {
		for _, rows := range []int{1, 31, 32, 33, 100} {
			l, _ := made(rows, 7, bitWidth)
			width := (7*bitWidth + 7) / 8
			across := make([]byte, rows*width)
			words := (rows*bitWidth + 31) / 32
			down := bytes.Repeat([]byte{255}, 4*words*7)
			if err := errors.Join(PackZeroPoints(across, l, 2), PackZeroPointsDown(down, l, 2)); err != nil {
				t.Fatal(err)
			}
			for row := range rows {
				for group := range 7 {
					z := l.ZeroPoints[row*7+group]
					var got, gotDown uint32
					for bit := range bitWidth {
						at := group*bitWidth + bit
						got |= uint32(across[row*width+at/8]) >> (at % 8) & 1 << bit
						at = row*bitWidth + bit
						word := binary.LittleEndian.Uint32(down[4*(at/32*7+group):])
						gotDown |= word >> (at % 32) & 1 << bit
					}
					if float32(got) != z || float32(gotDown) != z {
						t.Fatalf("%d bits, %d rows: %v became %d and %d", bitWidth, rows, z, got, gotDown)
					}
				}
			}
		}
	}
}

func TestRowsArePadded(t *testing.T) {
	l, _ := made(20, 3, 3)
	out := bytes.Repeat([]byte{255}, 20*40)
	if err := PadRows(out, l, 40, 2); err != nil {
		t.Fatal(err)
	}
	for row := range 20 {
		want := append(bytes.Clone(l.Codes[36*row:36*(row+1)]), 0, 0, 0, 0)
		if !bytes.Equal(out[40*row:40*(row+1)], want) {
			t.Fatalf("row %d is %v", row, out[40*row:40*(row+1)])
		}
	}
}

func TestWrongSizesAreRefused(t *testing.T) {
	l, _ := made(4, 2, 4)
	short := l
	short.Scales = short.Scales[1:]
	for name, call := range map[string]func() error{
		"layer":    func() error { return Lay(make([]byte, 128), short, Options{Part: "codes", Width: 32, Threads: 1}) },
		"out":      func() error { return Lay(make([]byte, 127), l, Options{Part: "codes", Width: 32, Threads: 1}) },
		"width":    func() error { return Lay(make([]byte, 64), l, Options{Part: "codes", Width: 16, Threads: 1}) },
		"part":     func() error { return Lay(nil, l, Options{Part: "weights", Threads: 1}) },
		"8 bits":   func() error { return Blocks(nil, Layer{BitWidth: 8}, false, 1) },
		"3 bits":   func() error { return Blocks(nil, Layer{BitWidth: 3}, true, 1) },
		"blocks":   func() error { return Blocks(make([]byte, 1), l, true, 1) },
		"scales":   func() error { return Scales(make([]byte, 15), l, quant.ScaleFloat16, 1) },
		"zeros":    func() error { return PackZeroPoints(make([]byte, 3), l, 1) },
		"down":     func() error { return PackZeroPointsDown(make([]byte, 3), l, 1) },
		"negative": func() error { return PadRows(nil, Layer{Rows: -1, RowBytes: -1, BitWidth: 4}, 0, 1) },
	} {
		if err := call(); !errors.Is(err, quant.ErrArgument) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func BenchmarkBlocks(b *testing.B) {
	for name, symmetric := range map[string]bool{"Q4_0": true, "Q4_1": false} {
		b.Run(name, func(b *testing.B) {
			l, _ := made(1024, 64, 4)
			out := make([]byte, 20*l.Rows*l.Groups)
			if symmetric {
				out = out[:18*l.Rows*l.Groups]
			}
			b.SetBytes(int64(len(out)))
			for b.Loop() {
				if err := Blocks(out, l, symmetric, 1); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
