package kernel

import "encoding/binary"

// pack writes codes as a little-endian bit stream: code i occupies the bits
// i*bitWidth .. i*bitWidth+bitWidth-1. out has RowBytes(len(codes), bitWidth)
// bytes; bits past the last code become zero.
func pack(out []byte, codes []uint8, bitWidth int) {
	for len(codes) >= 8 && len(out) >= 8 {
		binary.LittleEndian.PutUint64(out, packEight(codes[:8], bitWidth))
		out, codes = out[bitWidth:], codes[8:]
	}
	var word [8]byte
	for len(codes) > 0 {
		n := min(8, len(codes))
		binary.LittleEndian.PutUint64(word[:], packEight(codes[:n], bitWidth))
		size := RowBytes(n, bitWidth)
		copy(out[:size], word[:])
		out, codes = out[size:], codes[n:]
	}
}

func packEight(codes []uint8, bitWidth int) uint64 {
	var word uint64
	for i, code := range codes {
		word |= uint64(code) << (i * bitWidth)
	}
	return word
}

// Unpack gives codes of so many bits, one a byte.
func Unpack(codes []uint8, packed []byte, bitWidth int) {
	set, whole := fastestSet, len(codes)&^7
	if set == nil || bitWidth == 8 || whole == 0 {
		unpack(codes, packed, bitWidth)
		return
	}
	_ = packed[RowBytes(whole, bitWidth)-1]
	set.unpack[bitWidth](&codes[0], &packed[0], whole)
	unpack(codes[whole:], packed[RowBytes(whole, bitWidth):], bitWidth)
}

// unpack is the reverse of pack.
func unpack(codes []uint8, packed []byte, bitWidth int) {
	spread := SpreadOf(bitWidth)
	var word [8]byte
	for len(codes) > 0 {
		n := min(8, len(codes))
		size := RowBytes(n, bitWidth)
		var bits uint64
		if len(packed) >= 8 {
			bits = binary.LittleEndian.Uint64(packed)
		} else {
			clear(word[:])
			copy(word[:], packed[:size])
			bits = binary.LittleEndian.Uint64(word[:])
		}
		eight := spread.Bytes(bits)
		if n == 8 {
			binary.LittleEndian.PutUint64(codes, eight)
		} else {
			binary.LittleEndian.PutUint64(word[:], eight)
			copy(codes, word[:n])
		}
		codes, packed = codes[n:], packed[size:]
	}
}

// Spread gives each of eight codes of so many bits a byte: halves are parted, then quarters,
// then single codes, by masks of what stays.
type Spread struct {
	bitWidth                  int
	halves, quarters, singles uint64
}

func SpreadOf(bitWidth int) Spread {
	return Spread{
		bitWidth, 1<<(4*bitWidth) - 1,
		(1<<(2*bitWidth) - 1) * 0x0000000100000001, (1<<bitWidth - 1) * 0x0001000100010001,
	}
}

func (s *Spread) Bytes(x uint64) uint64 {
	x = x&s.halves | x>>(4*s.bitWidth&63)&s.halves<<32
	x = x&s.quarters | x>>(2*s.bitWidth&63)&s.quarters<<16
	return x&s.singles | x>>(s.bitWidth&63)&s.singles<<8
}
