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
	lay := map[int]func(out, codes []byte, blocks, stride int){4: kernel.SplitHalves, 5: blocksOf5, 8: blocksOf8}[l.BitWidth]
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
		for row := first; row < end; row++ {
			groups := row * l.Groups
			blocks := out[size*groups : size*(groups+l.Groups)]
			for i := range l.Groups {
				scale := l.Scales[groups+i]
				binary.LittleEndian.PutUint16(blocks[size*i:], kernel.Float16Bits(scale))
				if !symmetric {
					binary.LittleEndian.PutUint16(blocks[size*i+2:], kernel.Float16Bits(-l.ZeroPoints[groups+i]*scale))
				}
			}
			lay(blocks[header:], l.Codes[codesBytes*groups:codesBytes*(groups+l.Groups)], l.Groups, size)
		}
	})
}

func blocksOf5(out, codes []byte, blocks, stride int) {
	for block := range blocks {
		to, from := out[stride*block:][:20], codes[20*block:][:20]
		var halves [4]uint64
		fifths := uint32(0)
		for i := range 4 {
			five := from[5*i : 5*i+5]
			spread := fives.Bytes(uint64(binary.LittleEndian.Uint32(five)) | uint64(five[4])<<32)
			fifths |= uint32(gather(spread>>4&ones)) << (8 * i)
			halves[i] = spread & lowHalves
		}
		binary.LittleEndian.PutUint32(to, fifths)
		binary.LittleEndian.PutUint64(to[4:], halves[0]|halves[2]<<4)
		binary.LittleEndian.PutUint64(to[12:], halves[1]|halves[3]<<4)
	}
}

// blocksOf8 makes codes int8: q - 128.
func blocksOf8(out, codes []byte, blocks, stride int) {
	for block := range blocks {
		to, from := out[stride*block:][:blockSize], codes[blockSize*block:][:blockSize]
		for i := 0; i < blockSize; i += 8 {
			binary.LittleEndian.PutUint64(to[i:], binary.LittleEndian.Uint64(from[i:])^0x80*ones)
		}
	}
}

const (
	ones      = 0x0101010101010101
	lowPairs  = 3 * ones
	lowHalves = 15 * ones
)

var fives = kernel.SpreadOf(5)

// gather makes a byte of the lowest bits of eight.
func gather(x uint64) uint64 { return x * 0x0102040810204080 >> 56 }
