package layout

import (
	"encoding/binary"
	"fmt"

	"github.com/pyarrowquant/pyarrowquant/quant"
	"github.com/pyarrowquant/pyarrowquant/quant/internal/kernel"
)

// blockSize is how many columns share a scale in ggml's blocks.
const blockSize = 32

// Blocks lays a layer out as ggml's Q4_0, Q5_0 and Q8_0 (symmetric zero-points) or
// Q4_1 and Q5_1 (others): for each group of 32 columns the scale as float16, with
// others -zero_point * scale as float16, with 5 bits a fifth bit of each code, and the
// codes, of which the low halves of bytes have the first 16.
func Blocks(out []byte, l Layer, symmetric bool, threads int) error {
	if err := l.check(); err != nil {
		return err
	}
	lay := map[int]func(out, codes []byte){4: blockOf4, 5: blockOf5, 8: blockOf8}[l.BitWidth]
	if lay == nil || l.BitWidth == 8 && !symmetric || l.RowBytes != 4*l.BitWidth*l.Groups {
		return fmt.Errorf("%w: no blocks of %d bits with %d groups and %d bytes a row",
			quant.ErrArgument, l.BitWidth, l.Groups, l.RowBytes)
	}
	header := 2
	if !symmetric {
		header = 4
	}
	codesBytes := 4 * l.BitWidth
	size := header + codesBytes
	if err := checkSize("blocks", out, size*l.Rows*l.Groups); err != nil {
		return err
	}
	return overRows(threads, l.Rows, size*l.Groups, func(first, end int) {
		for i := first * l.Groups; i < end*l.Groups; i++ {
			block := out[size*i : size*(i+1)]
			binary.LittleEndian.PutUint16(block, kernel.Float16Bits(l.Scales[i]))
			if !symmetric {
				binary.LittleEndian.PutUint16(block[2:], kernel.Float16Bits(-l.ZeroPoints[i]*l.Scales[i]))
			}
			lay(block[header:], l.Codes[codesBytes*i:codesBytes*(i+1)])
		}
	})
}

func blockOf4(out, codes []byte) {
	_, _ = out[15], codes[15]
	for i := range 2 {
		low := fours.Bytes(uint64(binary.LittleEndian.Uint32(codes[4*i:])))
		high := fours.Bytes(uint64(binary.LittleEndian.Uint32(codes[8+4*i:])))
		binary.LittleEndian.PutUint64(out[8*i:], low|high<<4)
	}
}

func blockOf5(out, codes []byte) {
	_, _ = out[19], codes[19]
	var halves [4]uint64
	fifths := uint32(0)
	for i := range 4 {
		five := codes[5*i : 5*i+5]
		eight := fives.Bytes(uint64(binary.LittleEndian.Uint32(five)) | uint64(five[4])<<32)
		fifths |= uint32(gather(eight>>4&ones)) << (8 * i)
		halves[i] = eight & (15 * ones)
	}
	binary.LittleEndian.PutUint32(out, fifths)
	binary.LittleEndian.PutUint64(out[4:], halves[0]|halves[2]<<4)
	binary.LittleEndian.PutUint64(out[12:], halves[1]|halves[3]<<4)
}

// blockOf8 makes codes int8: q - 128.
func blockOf8(out, codes []byte) {
	for i := 0; i < blockSize; i += 8 {
		binary.LittleEndian.PutUint64(out[i:], binary.LittleEndian.Uint64(codes[i:])^0x80*ones)
	}
}

const ones = 0x0101010101010101

var fours, fives = kernel.SpreadOf(4), kernel.SpreadOf(5)

// gather makes a byte of the lowest bits of eight.
func gather(x uint64) uint64 { return x * 0x0102040810204080 >> 56 }
