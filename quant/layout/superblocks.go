package layout

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/pyarrowquant/pyarrowquant/quant"
	"github.com/pyarrowquant/pyarrowquant/quant/internal/kernel"
)

// encodedBlock is what of a layer makes a block of ggml: a super-group, or a group that
// stands alone.
type encodedBlock struct {
	codes             [superSize]uint8
	factors, minimums [superSize / 16]uint8 // as they are stored
	superScale        uint16                // float16
	superMinimum      uint16
	scale             float32 // of a group that stands alone
}

// superSize is how many columns share super-scales.
const superSize = 256

// blockForm is how ggml stores blocks of an encoding.
type blockForm struct {
	columns, bytes int
	offset         float32 // what is added to factors
	lay            func(out []byte, b *encodedBlock)
}

var blockForms = map[kernel.Encoding]blockForm{
	kernel.Q2K:   {superSize, 84, 0, layQ2K},
	kernel.Q3K:   {superSize, 110, 32, layQ3K},
	kernel.Q4K:   {superSize, 144, 0, layQ4K},
	kernel.Q5K:   {superSize, 176, 0, layQ5K},
	kernel.Q6K:   {superSize, 210, 0, layQ6K},
	kernel.IQ4NL: {blockSize, 18, 0, layIQ4NL},
	kernel.IQ4XS: {superSize, 136, 32, layIQ4XS},
	kernel.MXFP4: {blockSize, 17, 0, layMXFP4},
}

// EncodedBlocks lays a layer of an encoding out as ggml's type of that name. Columns are
// whole blocks.
func EncodedBlocks(out []byte, l Layer, encoding quant.Encoding, threads int) error {
	if err := l.check(); err != nil {
		return err
	}
	form, known := blockForms[kernel.Encoding(encoding)]
	if !known {
		return fmt.Errorf("%w: ggml has no blocks of encoding '%s'", quant.ErrArgument, encoding)
	}
	d := kernel.Encoding(encoding).Describe()
	groups := form.columns / d.GroupSize // of a block
	blocks := l.Groups / groups
	supers := 0
	if d.SuperSize > 0 {
		supers = l.Rows * blocks
	}
	minimums := 0
	if d.Minimums {
		minimums = supers
	}
	if l.BitWidth != d.BitWidth || blocks*groups != l.Groups || l.RowBytes != form.columns/8*d.BitWidth*blocks ||
		len(l.SuperScales) != supers || len(l.SuperMinimums) != minimums {
		return fmt.Errorf("%w: no blocks of encoding '%s' with %d bits, %d groups, %d bytes a row, %d super-scales and %d super-minimums",
			quant.ErrArgument, encoding, l.BitWidth, l.Groups, l.RowBytes, len(l.SuperScales), len(l.SuperMinimums))
	}
	if err := checkSize("blocks", out, form.bytes*l.Rows*blocks); err != nil {
		return err
	}
	codesBytes := form.columns / 8 * d.BitWidth
	return overRows(threads, l.Rows, form.bytes*blocks, func(first, end int) {
		var b encodedBlock
		for i := first * blocks; i < end*blocks; i++ {
			kernel.Unpack(b.codes[:form.columns], l.Codes[codesBytes*i:codesBytes*(i+1)], d.BitWidth)
			if d.SuperSize > 0 {
				b.setFactors(&l, i, groups, form.offset)
			} else {
				b.scale = l.Scales[i]
			}
			form.lay(out[form.bytes*i:form.bytes*(i+1)], &b)
		}
	})
}

// setFactors finds the small integers that the scales and minimums of a super-block were
// made with.
func (b *encodedBlock) setFactors(l *Layer, i, groups int, offset float32) {
	d, dmin := l.SuperScales[i], float32(0)
	if l.SuperMinimums != nil {
		dmin = l.SuperMinimums[i]
	}
	for k := range groups {
		scale := l.Scales[i*groups+k]
		b.factors[k], b.minimums[k] = uint8(int8(offset)), 0
		if d != 0 {
			b.factors[k] = uint8(int8(round(scale/d) + offset))
		}
		if dmin != 0 {
			b.minimums[k] = uint8(round(l.ZeroPoints[i*groups+k] * scale / dmin))
		}
	}
	b.superScale, b.superMinimum = kernel.Float16Bits(d), kernel.Float16Bits(dmin)
}

func round(x float32) float32 { return float32(math.RoundToEven(float64(x))) }

// putPairs writes two bits of codes: each half of the block has 32 bytes.
func putPairs(out []byte, codes *[superSize]uint8, bit int) {
	for h := range 2 {
		for i := 0; i < 32; i += 8 {
			pairs := uint64(0)
			for k := range 4 {
				pairs |= eight(codes[128*h+32*k+i:]) >> bit & lowPairs << (2 * k)
			}
			binary.LittleEndian.PutUint64(out[32*h+i:], pairs)
		}
	}
}

// putBits writes one bit of codes: bit k of byte i is that of code 32*k+i.
func putBits(out []byte, codes *[superSize]uint8, bit int) {
	for i := 0; i < 32; i += 8 {
		bits := uint64(0)
		for k := range 8 {
			bits |= eight(codes[32*k+i:]) >> bit & ones << k
		}
		binary.LittleEndian.PutUint64(out[i:], bits)
	}
}

// putNibbles writes the lower four bits of codes: of 64, the low halves of bytes have the
// first 32.
func putNibbles(out []byte, codes *[superSize]uint8) {
	for part := range 4 {
		for i := 0; i < 32; i += 8 {
			putHalves(out[32*part+i:], codes[64*part+i:], codes[64*part+i+32:])
		}
	}
}

// putShort writes 32 codes of four bits: the low halves of bytes have the first 16.
func putShort(out []byte, codes []uint8) {
	putHalves(out, codes, codes[16:])
	putHalves(out[8:], codes[8:], codes[24:])
}

// putHalves writes eight bytes of the lower four bits of codes.
func putHalves(out []byte, low, high []uint8) {
	binary.LittleEndian.PutUint64(out, eight(low)&lowHalves|eight(high)&lowHalves<<4)
}

func eight(codes []uint8) uint64 { return binary.LittleEndian.Uint64(codes) }

func layQ2K(out []byte, b *encodedBlock) {
	for k := range 16 {
		out[k] = b.factors[k] | b.minimums[k]<<4
	}
	putPairs(out[16:], &b.codes, 0)
	binary.LittleEndian.PutUint16(out[80:], b.superScale)
	binary.LittleEndian.PutUint16(out[82:], b.superMinimum)
}

func layQ3K(out []byte, b *encodedBlock) {
	putBits(out, &b.codes, 2)
	putPairs(out[32:], &b.codes, 0)
	scales := out[96:108]
	clear(scales)
	for k := range 16 {
		scales[k%8] |= b.factors[k] & 15 << (k / 8 * 4)
		scales[8+k%4] |= b.factors[k] >> 4 << (k / 4 * 2)
	}
	binary.LittleEndian.PutUint16(out[108:], b.superScale)
}

// putSixes writes the factors of scales and minimums of six bits.
func putSixes(out []byte, b *encodedBlock) {
	for k := range 4 {
		out[k] = b.factors[k] | b.factors[k+4]>>4<<6
		out[k+4] = b.minimums[k] | b.minimums[k+4]>>4<<6
		out[k+8] = b.factors[k+4]&15 | b.minimums[k+4]<<4
	}
}

func layQ4K(out []byte, b *encodedBlock) {
	binary.LittleEndian.PutUint16(out, b.superScale)
	binary.LittleEndian.PutUint16(out[2:], b.superMinimum)
	putSixes(out[4:], b)
	putNibbles(out[16:], &b.codes)
}

func layQ5K(out []byte, b *encodedBlock) {
	binary.LittleEndian.PutUint16(out, b.superScale)
	binary.LittleEndian.PutUint16(out[2:], b.superMinimum)
	putSixes(out[4:], b)
	putBits(out[16:], &b.codes, 4)
	putNibbles(out[48:], &b.codes)
}

func layQ6K(out []byte, b *encodedBlock) {
	for h := range 2 {
		q := b.codes[128*h:]
		for i := 0; i < 32; i += 8 {
			putHalves(out[64*h+i:], q[i:], q[i+64:])
			putHalves(out[64*h+i+32:], q[i+32:], q[i+96:])
		}
	}
	putPairs(out[128:], &b.codes, 4)
	copy(out[192:208], b.factors[:])
	binary.LittleEndian.PutUint16(out[208:], b.superScale)
}

func layIQ4NL(out []byte, b *encodedBlock) {
	binary.LittleEndian.PutUint16(out, kernel.Float16Bits(b.scale))
	putShort(out[2:], b.codes[:])
}

func layIQ4XS(out []byte, b *encodedBlock) {
	binary.LittleEndian.PutUint16(out, b.superScale)
	high := uint16(0)
	for k := range 8 {
		high |= uint16(b.factors[k]>>4) << (2 * k)
		if k%2 == 0 {
			out[4+k/2] = b.factors[k]&15 | b.factors[k+1]<<4
		}
		putShort(out[8+16*k:], b.codes[32*k:])
	}
	binary.LittleEndian.PutUint16(out[2:], high)
}

func layMXFP4(out []byte, b *encodedBlock) {
	out[0] = uint8(math.Float32bits(b.scale) >> 23) // of 2^-127, too: it is subnormal
	putShort(out[1:], b.codes[:])
}
