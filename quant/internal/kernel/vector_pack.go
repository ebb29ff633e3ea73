package kernel

import "unsafe"

// minStreamed is the least size of an output that is worth streaming.
const minStreamed = 4 << 10

// packRun writes the codes of a run to where they belong.
func (v *vectorSet) packRun(s *vectorScratch, b *Block, packed *byte, codes []uint8) {
	to := unsafe.Slice(packed, len(codes)/8*b.BitWidth)
	if len(b.Packed) < minStreamed {
		v.prefetch(uintptr(unsafe.Pointer(packed))+uintptr(runsAhead*len(to)), len(to))
		v.packCodes(to, codes, b.BitWidth)
	} else if b.BitWidth == 8 {
		v.streamTo(to, codes)
	} else {
		v.packCodes(s.runPacked[:], codes, b.BitWidth)
		v.streamTo(to, s.runPacked[:len(to)])
	}
}

// streamTo copies bytes, whole lines by streaming: reading them first, as
// ordinary stores do, would take a part of the memory's bandwidth.
func (v *vectorSet) streamTo(to, from []byte) {
	const line = 64
	head := int(-uintptr(unsafe.Pointer(&to[0])) % line)
	whole := (len(to) - head) / line * line
	if whole <= 0 {
		copy(to, from)
		return
	}
	copy(to[:head], from)
	v.stream(&to[head], &from[head], whole)
	copy(to[head+whole:], from[head+whole:])
}

// packCodes packs codes, whose number is a multiple of 8.
func (v *vectorSet) packCodes(to, codes []uint8, bitWidth int) {
	if bitWidth == 8 {
		copy(to, codes)
		return
	}
	if v.packWide[bitWidth] != nil {
		whole := len(codes) / v.wideCodes * v.wideCodes
		v.packWide[bitWidth](&to[0], unsafe.SliceData(codes), whole)
		to, codes = to[RowBytes(whole, bitWidth):], codes[whole:]
	}
	if len(codes) > 0 {
		v.pack[bitWidth](&to[0], &codes[0], len(codes))
	}
}
