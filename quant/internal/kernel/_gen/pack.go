package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// Codes are packed and unpacked by shifts within vectors. PEXT and PDEP would do the
// same to 8 codes, but are microcode of some hundred cycles on AMD's Zen 1 and 2.

// enough is how many codes, a multiple of 8, have so many packed bytes.
func enough(bytes, bitWidth int) int { return (bytes + bitWidth - 1) / bitWidth * 8 }

// pack joins neighbours until 8 codes are the lowest bitWidth bytes of 64 bits.
// Stores may reach into the bytes of later codes, but not past the end.
func pack(bitWidth int) {
	function(fmt.Sprintf("pack%d", bitWidth), "func(packed, codes *byte, n int)",
		fmt.Sprintf("Packs n codes of %d bits, n being a multiple of 8.", bitWidth))
	packed, codes, left := pointer("packed"), pointer("codes"), pointer("n")
	pairs := broadcast(constant(fmt.Sprintf("pairs%d", bitWidth), 1|1<<bitWidth<<8|1<<16|1<<bitWidth<<24), 8)
	pairsOfPairs := broadcast(constant(fmt.Sprintf("pairsOfPairs%d", bitWidth), 1|1<<(2*bitWidth)<<16), 8)
	shifts := YMM()
	lower := GLOBL(fmt.Sprintf("lowerFours%d", bitWidth), RODATA|NOPTR)
	DATA(0, U64(uint64(32-4*bitWidth)))
	VBROADCASTSD(lower, shifts)
	var content [16]byte
	for i := range content {
		content[i] = 0x80 // becomes 0
		if i < 2*bitWidth {
			content[i] = byte(i/bitWidth*8 + i%bitWidth)
		}
	}
	order := isas[0].loadRepeated(table(fmt.Sprintf("packed%d", bitWidth), content), 16)
	join := func(v, pairs, pairsOfPairs, shifts Op) {
		VPMADDUBSW(pairs, v, v)
		VPMADDWD(pairsOfPairs, v, v)
		VPSLLVD(shifts, v, v)
		VPSRLQ(U8(32-4*bitWidth), v, v)
	}
	thirtyTwo := func(k int) {
		v := YMM()
		VMOVDQU(Mem{Base: codes, Disp: 32 * k}, v)
		join(v, pairs, pairsOfPairs, shifts)
		VPSHUFB(order, v, v)
		VMOVDQU(v.AsX(), Mem{Base: packed, Disp: 4 * bitWidth * k})
		VEXTRACTI128(U8(1), v, Mem{Base: packed, Disp: 4*bitWidth*k + 2*bitWidth})
	}
	word := GP64()
	eight := func() {
		v := XMM()
		VMOVQ(Mem{Base: codes}, v)
		join(v, pairs.AsX(), pairsOfPairs.AsX(), shifts.AsX())
		VMOVQ(v, word)
	}
	loopWhile("sixty_four", 32+enough(2*bitWidth+16, bitWidth), 64, bitWidth, left, codes, packed, func() {
		thirtyTwo(0)
		thirtyTwo(1)
	})
	loopWhile("eight", enough(8, bitWidth), 8, bitWidth, left, codes, packed, func() {
		eight()
		MOVQ(word, Mem{Base: packed})
	})
	loopWhile("last", 8, 8, bitWidth, left, codes, packed, func() {
		eight()
		storeExact(word, packed, bitWidth)
	})
	VZEROUPPER()
	RET()
}

func storeExact(word, packed GPVirtual, bitWidth int) {
	if bitWidth < 4 {
		MOVW(word.As16(), Mem{Base: packed})
	} else {
		MOVL(word.As32(), Mem{Base: packed})
	}
	switch bitWidth {
	case 3:
		SHRQ(U8(16), word)
		MOVB(word.As8(), Mem{Base: packed, Disp: 2})
	case 5:
		SHRQ(U8(32), word)
		MOVB(word.As8(), Mem{Base: packed, Disp: 4})
	case 6:
		SHRQ(U8(32), word)
		MOVW(word.As16(), Mem{Base: packed, Disp: 4})
	}
}

// packTogether packs with multiplications: neighbours a and b become
// a + b<<bitWidth, which fits into a byte.
func packTogether(i isa, bitWidth int) {
	size := 4 * i.lanes // codes at a time
	function(fmt.Sprintf("pack%d%s", bitWidth, i.name), "func(packed, codes *byte, n int)",
		fmt.Sprintf("Packs n codes of %d bits, n being a multiple of %d.", bitWidth, size))
	packed, codes, left := pointer("packed"), pointer("codes"), pointer("n")
	bytes := broadcast(constant(fmt.Sprintf("pairs%d%s", bitWidth, i.name), 1|1<<bitWidth<<8|1<<16|1<<bitWidth<<24), i.lanes)
	words := broadcast(constant(fmt.Sprintf("pairsOfPairs%d%s", bitWidth, i.name), 1|1<<(2*bitWidth)<<16), i.lanes)
	SUBQ(I32(int32(size)), left)
	JL(LabelRef("done"))
	Label("next")
	v := vector(i.lanes)
	VMOVUPS(Mem{Base: codes}, v)
	VPMADDUBSW(bytes, v, v) // words below 2^(2*bitWidth)
	if bitWidth == 2 {
		VPMADDWD(words, v, v)
	}
	i.storePacked(v, bitWidth, Mem{Base: packed})
	ADDQ(I32(int32(size)), codes)
	ADDQ(I32(int32(size*bitWidth/8)), packed)
	SUBQ(I32(int32(size)), left)
	JGE(LabelRef("next"))
	Label("done")
	VZEROUPPER()
	RET()
}

// storePacked narrows words (4 bits) or integers (2 bits) of 0 .. 255 to bytes.
func (i isa) storePacked(v VecVirtual, bitWidth int, to Mem) {
	switch {
	case i.lanes == 16 && bitWidth == 4:
		VPMOVWB(v, to)
	case i.lanes == 16:
		VPMOVDB(v, to)
	case bitWidth == 4:
		upper := XMM()
		VEXTRACTI128(U8(1), v, upper)
		VPACKUSWB(upper, v.AsX(), upper)
		VMOVUPS(upper, to)
	default:
		i.storeBytes(v, to)
	}
}

// splitHalves unpacks the codes of a block to bytes, and joins those of its halves.
func splitHalves() {
	function("splitHalves", "func(out, packed *byte, blocks, stride int)",
		"Writes blocks of 32 packed codes of four bits so that the low halves of bytes have the first 16.")
	out, packed, left, stride := pointer("out"), pointer("packed"), pointer("blocks"), pointer("stride")
	halves := broadcast(constant("lowHalves", 0x0f0f0f0f), 8).AsX()
	Label("block")
	even, odd, first := XMM(), XMM(), XMM()
	VMOVDQU(Mem{Base: packed}, even)
	VPSRLW(U8(4), even, odd)
	VPAND(halves, even, even)
	VPAND(halves, odd, odd)
	VPUNPCKLBW(odd, even, first)
	second := even
	VPUNPCKHBW(odd, even, second)
	VPSLLW(U8(4), second, second)
	VPOR(second, first, first)
	VMOVDQU(first, Mem{Base: out})
	ADDQ(U8(16), packed)
	ADDQ(stride, out)
	DECQ(left)
	JNZ(LabelRef("block"))
	VZEROUPPER()
	RET()
}
