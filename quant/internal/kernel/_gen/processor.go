package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// control reads and writes how floating-point operations round.
func control() {
	function("readControl", "func() (value uint32)", "The MXCSR register of this thread.")
	m := AllocLocal(8)
	STMXCSR(m)
	value := GP32()
	MOVL(m, value)
	Store(value, Return("value"))
	RET()
	function("writeControl", "func(value uint32)", "Sets the MXCSR register of this thread.")
	LDMXCSR(argument("value"))
	RET()
}

// f16c asks the CPU for what golang.org/x/sys/cpu does not know.
func f16c() {
	function("hasF16C", "func() (has bool)", "Whether the CPU converts float16; the system has to keep its vector registers, too.")
	MOVL(U32(1), EAX)
	XORL(ECX, ECX)
	CPUID()
	SHRL(U8(29), ECX)
	ANDL(U32(1), ECX)
	Store(CL, Return("has"))
	RET()
}

// prefetch loads what later runs will write.
func prefetch() {
	function("prefetch", "func(address uintptr, n int)", "Has n bytes loaded into the second-level cache. They need not exist.")
	address, left := pointer("address"), pointer("n")
	Label("next")
	PREFETCHT1(Mem{Base: address})
	ADDQ(I32(64), address)
	SUBQ(I32(64), left)
	JG(LabelRef("next"))
	RET()
}

// lines is how many cache lines so many bytes are.
func lines(size int) int { return size / 64 }

// prefetchAhead prefetches some cache lines of later weights. The functions of a run do so by turns,
// so that memory is read all the time.
func prefetchAhead(weights, ahead GPVirtual, first, end int) {
	for line := first; line < end; line++ {
		PREFETCHT1(Mem{Base: weights, Index: ahead, Scale: 1, Disp: 64 * line})
	}
}

// stream copies without reading what lies at the destination, nor keeping it in
// caches.
func stream() {
	function("stream", "func(to, from *byte, n int)", "Copies n bytes to whole lines of 64 bytes; a fence has to follow.")
	to, from, left := pointer("to"), pointer("from"), pointer("n")
	Label("next")
	low, high := YMM(), YMM()
	VMOVDQU(Mem{Base: from}, low)
	VMOVDQU(Mem{Base: from, Disp: 32}, high)
	VMOVNTDQ(low, Mem{Base: to})
	VMOVNTDQ(high, Mem{Base: to, Disp: 32})
	ADDQ(I32(64), from)
	ADDQ(I32(64), to)
	SUBQ(I32(64), left)
	JG(LabelRef("next"))
	VZEROUPPER()
	RET()
	function("fence", "func()", "Has what was streamed come before all later stores.")
	SFENCE()
	RET()
}
