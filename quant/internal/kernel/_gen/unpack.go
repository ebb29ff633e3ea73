package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// unpack brings the two bytes that hold a code together and shifts them. Loads of more
// than the codes' bytes take place only where so many are left.
func unpack(bitWidth int) {
	function(fmt.Sprintf("unpack%d", bitWidth), "func(codes, packed *byte, n int)",
		fmt.Sprintf("Unpacks n codes of %d bits, n being a multiple of 8.", bitWidth))
	codes, packed, left := pointer("codes"), pointer("packed"), pointer("n")
	var evens, odds, factors [16]byte // of groups of 8 codes
	for i := range 8 {
		first := byte(i * bitWidth / 8)
		evens[2*i], evens[2*i+1] = first, first+1
		odds[2*i], odds[2*i+1] = byte(bitWidth)+first, byte(bitWidth)+first+1
		factor := 1 << (16 - bitWidth - i*bitWidth%8) // has the code end at the upper end
		factors[2*i], factors[2*i+1] = byte(factor), byte(factor>>8)
	}
	load := func(name string, content [16]byte) VecVirtual {
		return isas[0].loadRepeated(table(fmt.Sprintf("%s%d", name, bitWidth), content), 16)
	}
	even, odd, factor := load("evens", evens), load("odds", odds), load("factors", factors)
	spread := func(v, factor Op) {
		VPMULLW(factor, v, v)
		VPSRLW(U8(16-bitWidth), v, v)
	}
	thirtyTwo := func(k int) {
		v, w := YMM(), YMM()
		VMOVDQU(Mem{Base: packed, Disp: 4 * bitWidth * k}, v.AsX())
		VINSERTI128(U8(1), Mem{Base: packed, Disp: 4*bitWidth*k + 2*bitWidth}, v, v)
		VPSHUFB(odd, v, w)
		VPSHUFB(even, v, v)
		spread(v, factor)
		spread(w, factor)
		VPACKUSWB(w, v, v)
		VMOVDQU(v, Mem{Base: codes, Disp: 32 * k})
	}
	eight := func(v VecVirtual) {
		VPSHUFB(even.AsX(), v, v)
		spread(v, factor.AsX())
		VPACKUSWB(v, v, v)
		VMOVQ(v, Mem{Base: codes})
	}
	loopWhile("sixty_four", 32+enough(2*bitWidth+16, bitWidth), 64, bitWidth, left, codes, packed, func() {
		thirtyTwo(0)
		thirtyTwo(1)
	})
	loopWhile("eight", enough(8, bitWidth), 8, bitWidth, left, codes, packed, func() {
		v := XMM()
		VMOVQ(Mem{Base: packed}, v)
		eight(v)
	})
	loopWhile("last", 8, 8, bitWidth, left, codes, packed, func() {
		word, v := GP64(), XMM()
		loadExact(word, packed, bitWidth)
		VMOVQ(word, v)
		eight(v)
	})
	VZEROUPPER()
	RET()
}

func loadExact(word, packed GPVirtual, bitWidth int) {
	if bitWidth < 4 {
		MOVWQZX(Mem{Base: packed}, word)
	} else {
		MOVL(Mem{Base: packed}, word.As32())
	}
	high := GP64()
	switch bitWidth {
	case 3:
		MOVBQZX(Mem{Base: packed, Disp: 2}, high)
		SHLQ(U8(16), high)
	case 5:
		MOVBQZX(Mem{Base: packed, Disp: 4}, high)
		SHLQ(U8(32), high)
	case 6:
		MOVWQZX(Mem{Base: packed, Disp: 4}, high)
		SHLQ(U8(32), high)
	default:
		return
	}
	ORQ(high, word)
}
