package kernel

import (
	"encoding/binary"
	"unsafe"
)

// SplitHalves writes blocks of 32 packed codes of four bits so that the low halves of bytes
// have the first 16, as ggml stores them. Blocks are 16 bytes, which begin a stride one behind
// the other in out, and lie side by side in packed.
func SplitHalves(out, packed []byte, blocks, stride int) {
	if blocks == 0 {
		return
	}
	_, _ = out[(blocks-1)*stride+15], packed[blocks*16-1]
	if fastestSet != nil {
		fastestSet.splitHalves(&out[0], &packed[0], blocks, stride)
	} else {
		splitHalvesScalar(&out[0], &packed[0], blocks, stride)
	}
}

func splitHalvesScalar(out, packed *byte, blocks, stride int) {
	for i := range blocks {
		to, from := (*[16]byte)(unsafe.Add(unsafe.Pointer(out), i*stride)), (*[16]byte)(unsafe.Add(unsafe.Pointer(packed), i*16))
		first, second := binary.LittleEndian.Uint64(from[:]), binary.LittleEndian.Uint64(from[8:])
		even := first&lowHalves | second&lowHalves<<4
		odd := first>>4&lowHalves | second&^lowHalves
		binary.LittleEndian.PutUint64(to[:], alternate(uint32(even))|alternate(uint32(odd))<<8)
		binary.LittleEndian.PutUint64(to[8:], alternate(uint32(even>>32))|alternate(uint32(odd>>32))<<8)
	}
}

const lowHalves = 0x0f0f0f0f0f0f0f0f

// alternate gives four bytes every second place.
func alternate(bytes uint32) uint64 {
	x := uint64(bytes)
	x = (x | x<<16) & 0x0000ffff0000ffff
	return (x | x<<8) & 0x00ff00ff00ff00ff
}
