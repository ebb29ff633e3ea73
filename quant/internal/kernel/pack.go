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
func Unpack(codes []uint8, packed []byte, bitWidth int) { unpack(codes, packed, bitWidth) }

// unpack is the reverse of pack.
func unpack(codes []uint8, packed []byte, bitWidth int) {
	mask := uint64(1)<<bitWidth - 1
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
		for i := range codes[:n] {
			codes[i] = uint8(bits >> (i * bitWidth) & mask)
		}
		codes, packed = codes[n:], packed[size:]
	}
}
