// Command _gen writes the vector kernels: vector_amd64.s and the Go stubs of
// its functions, stubs_amd64.go. Run it with `go generate` in the folder above.
//
// Every function works on a run of groups of equal size, a multiple of 8. The
// arithmetic is that of the scalar kernel, operation by operation; fused
// multiply-add is used only where the product is exact.
package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// isa is an instruction set: the widest step is lanes float32 at a time.
type isa struct {
	name  string
	lanes int
}

var isas = []isa{{"AVX2", 8}, {"AVX512", 16}}

// element is a type of weights in memory.
type element struct {
	name string
	size int
}

var elements = []element{{"Float32", 4}, {"Float16", 2}, {"BFloat16", 2}}

func main() {
	ConstraintExpr("amd64")
	for _, i := range isas {
		for _, e := range elements {
			ranges(i, e)
			code(i, e)
			sums(i, e)
		}
		decodeCodes(i)
		stepSums(i, false)
		stepSums(i, true)
		hqqSums(i)
	}
	for _, e := range elements {
		transpose(e)
	}
	control()
	prefetch()
	stream()
	for _, i := range isas {
		packTogether(i, 2)
		packTogether(i, 4)
	}
	for _, zero := range []string{"Integer", "Float", "Symmetric"} {
		for _, scale := range []string{"Float32", "Float16", "BFloat16"} {
			fit(zero, scale)
			refine(zero, scale)
		}
	}
	for _, bitWidth := range []int{2, 3, 4, 5, 6} {
		pack(bitWidth)
		unpack(bitWidth)
	}
	f16c()
	Generate()
}

// vector is a new register of 8 or 16 float32.
func vector(lanes int) VecVirtual {
	if lanes == 16 {
		return ZMM()
	}
	return YMM()
}

// load widens lanes elements at address to float32.
func (e element) load(address Mem, lanes int) VecVirtual {
	v := vector(lanes)
	switch e.name {
	case "Float32":
		VMOVUPS(address, v)
	case "Float16":
		VCVTPH2PS(address, v)
	case "BFloat16":
		VPMOVZXWD(address, v)
		VPSLLD(U8(16), v, v)
	}
	return v
}

// loadCodes widens lanes codes at address to float32.
func loadCodes(address Mem, lanes int) VecVirtual {
	v := vector(lanes)
	VPMOVZXBD(address, v)
	VCVTDQ2PS(v, v)
	return v
}

func broadcast(address Mem, lanes int) VecVirtual {
	v := vector(lanes)
	VBROADCASTSS(address, v)
	return v
}

func zeroed(lanes int) VecVirtual {
	v := vector(lanes)
	if lanes == 16 {
		VPXORD(v, v, v)
	} else {
		VXORPS(v, v, v)
	}
	return v
}

// lower is a register, or the part of it that has only so many lanes.
func lower(v VecVirtual, lanes int) Op {
	if lanes == 8 && v.Size() == 64 {
		return v.AsY()
	}
	return v
}

// pointer loads a pointer argument.
func pointer(name string) GPVirtual { return Load(Param(name), GP64()).(GPVirtual) }

// argument is where an argument lies on the stack.
func argument(name string) Mem {
	basic, err := Param(name).Resolve()
	if err != nil {
		panic(err)
	}
	return basic.Addr
}

// function begins a function.
func function(name, signature, doc string) {
	TEXT(name, NOSPLIT, signature)
	Pragma("noescape")
	Doc(doc)
}

// forGroups emits a loop over the groups of a run.
func forGroups(name string, body func(groupSize GPVirtual)) {
	groups, groupSize := pointer("groups"), pointer("groupSize")
	Label(name + "_group")
	TESTQ(groups, groups)
	JZ(LabelRef(name + "_done"))
	body(groupSize)
	DECQ(groups)
	JMP(LabelRef(name + "_group"))
	Label(name + "_done")
}

// steps says how to go over a group.
type steps struct {
	// body handles lanes elements; at counts elements from the pointers.
	body func(lanes, at int)
	// four handles 4*lanes elements at once, if not nil.
	four func()
	// advance moves the pointers.
	advance func(elements int)
}

// forSteps emits a loop over a group in steps of the widest registers, four at
// a time as long as possible, and for 16 lanes one step of 8 for the rest.
func (i isa) forSteps(groupSize GPVirtual, s steps) {
	left := GP64()
	MOVQ(groupSize, left)
	if s.four == nil {
		s.four = func() {
			for k := range 4 {
				s.body(i.lanes, k*i.lanes)
			}
		}
	}
	loop := func(name string, elements int, body func()) {
		SUBQ(I32(int32(elements)), left)
		JL(LabelRef(name + "_done"))
		Label(name)
		body()
		s.advance(elements)
		SUBQ(I32(int32(elements)), left)
		JGE(LabelRef(name))
		Label(name + "_done")
		ADDQ(I32(int32(elements)), left)
	}
	loop("four_steps", 4*i.lanes, s.four)
	loop("steps", i.lanes, func() { s.body(i.lanes, 0) })
	if i.lanes == 16 {
		TESTQ(left, left)
		JZ(LabelRef("no_rest"))
		s.body(8, 0)
		s.advance(8)
		Label("no_rest")
	}
}

// constant makes a read-only float32 or pattern of 32 bits.
func constant(name string, bits uint32) Mem {
	m := GLOBL(name, RODATA|NOPTR)
	DATA(0, U32(bits))
	return m
}

// Bounds and masks of fit, as bits.
var (
	one          = constant("one", 0x3f800000)
	signBit      = constant("signBit", 0x80000000)
	magnitude32  = constant("magnitude32", 0x7fffffff)
	minPlain     = constant("minPlain", 0x03800000)   // 2^-120
	maxPlain     = constant("maxPlain", 0x7b800000)   // 2^120
	maxOffset    = constant("maxOffset", 0x7effffff)  // the largest below 2^127
	minFloat16   = constant("minFloat16", 0x33800000) // 2^-24
	maxFloat16   = constant("maxFloat16", 0x477fe000) // 65504
	bfloatBelow  = constant("bfloatBelow", 0x00007fff)
	bfloatLowest = constant("bfloatLowest", 0x00000001)
	bfloatKept   = constant("bfloatKept", 0xffff0000)
)

func all(c Mem) VecVirtual { return broadcast(c, 8) }

// fit chooses the parameters of 8 groups at a time, as the function of that
// name does in rtn.go, for groups to which the plain formulas apply.
func fit(zero, scale string) {
	function("fit"+zero+scale, "func(lo, hi *float32, n int, maxCode, half float32, scale, inverse, zeroPoint *float32) (plain bool)",
		"Round-to-nearest parameters of n groups. Slices are rounded up to 8 groups. If not plain, they are undefined.")
	lows, highs, left := pointer("lo"), pointer("hi"), pointer("n")
	scales, inverses, zeroPoints := pointer("scale"), pointer("inverse"), pointer("zeroPoint")
	maxCode, half := all(argument("maxCode")), all(argument("half"))
	nothing, magnitude, sign := zeroed(8), all(magnitude32), all(signBit)
	Label("next")
	lo, hi, s, t := YMM(), YMM(), YMM(), YMM()
	VMOVUPS(Mem{Base: lows}, lo)
	VMOVUPS(Mem{Base: highs}, hi)
	outside := zeroed(8) // lanes to which the formulas do not apply
	require := func(v VecVirtual, lowest, highest Mem) {
		VANDPS(magnitude, v, t)
		if lowest.Symbol.Name != "" {
			fails := all(lowest)
			VCMPPS(U8(9), fails, t, fails) // not t >= lowest, and so for NaN
			VORPS(fails, outside, outside)
		}
		fails := all(highest)
		VCMPPS(U8(6), fails, t, fails) // not t <= highest, likewise
		VORPS(fails, outside, outside)
	}
	switch zero {
	case "Symmetric":
		VXORPS(sign, lo, t)
		VCMPPS(U8(13), t, hi, t) // hi >= -lo
		VBLENDVPS(t, hi, lo, s)
		VXORPS(sign, s, s)
		VDIVPS(half, s, s)
	case "Integer":
		VMINPS(nothing, lo, lo)
		VMAXPS(nothing, hi, hi)
		VSUBPS(lo, hi, s)
		VDIVPS(maxCode, s, s)
	case "Float":
		require(lo, Mem{}, maxOffset)
		require(hi, Mem{}, maxOffset)
		VSUBPS(lo, hi, s)
		VDIVPS(maxCode, s, s)
	}
	require(s, minPlain, maxPlain)
	roundScale(scale, s)
	if scale == "Float16" {
		require(s, minFloat16, maxFloat16)
	}
	inverse := all(one)
	VDIVPS(s, inverse, inverse)
	z := YMM()
	switch zero {
	case "Symmetric":
		VMOVAPS(half, z)
	case "Integer":
		VXORPS(sign, lo, z)
		VMULPS(inverse, z, z)
		VMINPS(maxCode, z, z)
		VMAXPS(nothing, z, z)
		VROUNDPS(U8(0), z, z)
	case "Float":
		VXORPS(sign, lo, z)
		VMULPS(inverse, z, z)
		VADDPS(nothing, z, z) // never -0.0
	}
	VMOVUPS(s, Mem{Base: scales})
	VMOVUPS(inverse, Mem{Base: inverses})
	VMOVUPS(z, Mem{Base: zeroPoints})
	for _, p := range []GPVirtual{lows, highs, scales, inverses, zeroPoints} {
		ADDQ(I32(32), p)
	}
	// Lanes past the last group do not count.
	failed, lanes := GP32(), GP32()
	VMOVMSKPS(outside, failed)
	MOVL(U32(0xff), lanes)
	CMPQ(left, Imm(8))
	JGE(LabelRef("all_lanes"))
	MOVL(U32(1), lanes)
	shifted := GP64()
	MOVQ(left, shifted)
	SHLXQ(shifted, lanes.As64(), lanes.As64())
	DECL(lanes)
	Label("all_lanes")
	TESTL(lanes, failed)
	JNE(LabelRef("not_plain"))
	SUBQ(I32(8), left)
	JG(LabelRef("next"))
	VZEROUPPER()
	yes := GP8()
	MOVB(U8(1), yes)
	Store(yes, Return("plain"))
	RET()
	Label("not_plain")
	VZEROUPPER()
	no := GP8()
	XORB(no, no)
	Store(no, Return("plain"))
	RET()
}

// roundScale rounds scales to a type, to nearest, ties to even.
func roundScale(dtype string, s VecVirtual) {
	t := YMM()
	switch dtype {
	case "Float16":
		VCVTPS2PH(U8(0), s, t.AsX())
		VCVTPH2PS(t.AsX(), s)
	case "BFloat16":
		VPSRLD(U8(16), s, t)
		VPAND(all(bfloatLowest), t, t)
		VPADDD(all(bfloatBelow), t, t)
		VPADDD(s, t, s)
		VPAND(all(bfloatKept), s, s)
	}
}

// code computes the codes of each group, one byte each.
func code(i isa, e element) {
	function("code"+e.name+i.name, "func(weights *byte, groups, groupSize int, inverse, zeroPoint *float32, maxCode float32, codes *byte, ahead int)",
		"Codes of each group, one byte each; before they are clipped, they are integers of 32 bits. Weights this many bytes ahead are prefetched.")
	weights, inverses, zeroPoints, codes, ahead := pointer("weights"), pointer("inverse"), pointer("zeroPoint"), pointer("codes"), pointer("ahead")
	maxCode := vector(i.lanes)
	VBROADCASTSS(argument("maxCode"), maxCode) // no legacy SSE beside vectors
	VCVTPS2DQ(maxCode, maxCode)
	zero, four := zeroed(i.lanes), newFour(i, e, maxCode)
	forGroups("code", func(groupSize GPVirtual) {
		inverse, zeroPoint := broadcast(Mem{Base: inverses}, i.lanes), broadcast(Mem{Base: zeroPoints}, i.lanes)
		quantize := func(v VecVirtual, lanes int) VecVirtual {
			VMULPS(lower(inverse, lanes), v, v)
			VADDPS(lower(zeroPoint, lanes), v, v)
			VCVTPS2DQ(v, v)
			return v
		}
		prefetch := func(lanes int) {
			for at := 0; at < lanes*e.size; at += 64 { // once a cache line
				PREFETCHT1(Mem{Base: weights, Index: ahead, Scale: 1, Disp: at})
			}
		}
		i.forSteps(groupSize, steps{body: func(lanes, at int) {
			prefetch(lanes)
			v := quantize(e.load(Mem{Base: weights, Disp: at * e.size}, lanes), lanes)
			VPMAXSD(lower(zero, lanes), v, v)
			VPMINSD(lower(maxCode, lanes), v, v)
			i.storeBytes(v, Mem{Base: codes, Disp: at})
		}, four: func() {
			prefetch(4 * i.lanes)
			v := four.load(Mem{Base: weights})
			for k := range v {
				quantize(v[k], i.lanes)
			}
			VMOVUPS(four.narrow(v), Mem{Base: codes})
		}, advance: func(elements int) {
			ADDQ(I32(int32(elements*e.size)), weights)
			ADDQ(I32(int32(elements)), codes)
		}})
		ADDQ(I32(4), inverses)
		ADDQ(I32(4), zeroPoints)
	})
	VZEROUPPER()
	RET()
}

// storeBytes narrows integers of 0 .. 255 to bytes.
func (i isa) storeBytes(v VecVirtual, to Mem) {
	if i.lanes == 16 {
		VPMOVDB(v, to)
		return
	}
	upper := XMM()
	VEXTRACTI128(U8(1), v, upper)
	VPACKUSDW(upper, v.AsX(), upper)
	VPACKUSWB(upper, upper, upper)
	VMOVQ(upper, to)
}

// sums adds the errors of each group to laneSums.
func sums(i isa, e element) {
	function("sums"+e.name+i.name, "func(weights *byte, groups, groupSize int, scale, zeroPoint *float32, codes *byte, sums *float64)",
		"Adds the errors of each group to the lanes of laneSums.")
	weights, scales, zeroPoints, codes, to := pointer("weights"), pointer("scale"), pointer("zeroPoint"), pointer("codes"), pointer("sums")
	// AVX-512 holds 8 float64 in a register and all sums in registers; AVX2
	// holds 4, and adds to memory.
	var totals [5]VecVirtual
	if i.lanes == 16 {
		for k := range totals {
			totals[k] = ZMM()
			VMOVUPD(Mem{Base: to, Disp: 64 * k}, totals[k])
		}
	}
	magnitude := vector(i.lanes)
	VBROADCASTSD(magnitudeMask, magnitude)
	forGroups("sums", func(groupSize GPVirtual) {
		scale, zeroPoint := broadcast(Mem{Base: scales}, i.lanes), broadcast(Mem{Base: zeroPoints}, i.lanes)
		i.forSteps(groupSize, steps{body: func(lanes, at int) {
			w := e.load(Mem{Base: weights, Disp: at * e.size}, lanes)
			d := loadCodes(Mem{Base: codes, Disp: at}, lanes)
			VSUBPS(lower(zeroPoint, lanes), d, d)
			VMULPS(lower(scale, lanes), d, d)
			// The upper half has the same lanes as the lower one, later.
			for part := 0; part < lanes*8; part += i.lanes * 4 {
				i.addSums(i.toFloat64(w, lanes, part), i.toFloat64(d, lanes, part), magnitude, totals, to, part%64)
			}
		}, advance: func(elements int) {
			ADDQ(I32(int32(elements*e.size)), weights)
			ADDQ(I32(int32(elements)), codes)
		}})
		ADDQ(I32(4), scales)
		ADDQ(I32(4), zeroPoints)
	})
	if i.lanes == 16 {
		for k, total := range totals {
			VMOVUPD(total, Mem{Base: to, Disp: 64 * k})
		}
	}
	VZEROUPPER()
	RET()
}

var magnitudeMask = func() Mem {
	m := GLOBL("magnitudeMask", RODATA|NOPTR)
	DATA(0, U64(0x7fffffffffffffff))
	return m
}()

// toFloat64 widens the lower or the upper half of a register. part is the
// byte position of the result among the register's lanes as float64.
func (i isa) toFloat64(v VecVirtual, lanes, part int) VecVirtual {
	out := vector(i.lanes)
	switch {
	case i.lanes == 16 && lanes == 8:
		VCVTPS2PD(v, out)
	case i.lanes == 16 && part == 0:
		VCVTPS2PD(v.AsY(), out)
	case i.lanes == 16:
		upper := YMM()
		VEXTRACTF64X4(U8(1), v, upper)
		VCVTPS2PD(upper, out)
	case part == 0:
		VCVTPS2PD(v.AsX(), out)
	default:
		upper := XMM()
		VEXTRACTF128(U8(1), v, upper)
		VCVTPS2PD(upper, out)
	}
	return out
}

// addSums adds the terms of some weights w and decoded weights d. The products
// of two float32 are exact in float64, but the square of the error is not.
func (i isa) addSums(w, d, magnitude VecVirtual, totals [5]VecVirtual, to GPVirtual, lane int) {
	total := func(k int, update func(total VecVirtual)) {
		if i.lanes == 16 {
			update(totals[k])
			return
		}
		address := Mem{Base: to, Disp: 64*k + lane}
		v := YMM()
		VMOVUPD(address, v)
		update(v)
		VMOVUPD(v, address)
	}
	e, square := vector(i.lanes), vector(i.lanes)
	VSUBPD(d, w, e)
	VMULPD(e, e, square)
	total(0, func(t VecVirtual) { VADDPD(square, t, t) })
	total(1, func(t VecVirtual) { VFMADD231PD(w, w, t) })
	total(2, func(t VecVirtual) { VFMADD231PD(d, d, t) })
	total(3, func(t VecVirtual) { VFMADD231PD(w, d, t) })
	VANDPD(magnitude, e, e)
	total(4, func(t VecVirtual) { VMAXPD(e, t, t) })
}

// decodeCodes turns codes into float32 weights.
func decodeCodes(i isa) {
	function("decode"+i.name, "func(codes *byte, groups, groupSize int, scale, zeroPoint *byte, weights *byte)",
		"Decoded float32 weights of each group.")
	codes, scales, zeroPoints, weights := pointer("codes"), pointer("scale"), pointer("zeroPoint"), pointer("weights")
	forGroups("decode", func(groupSize GPVirtual) {
		scale, zeroPoint := broadcast(Mem{Base: scales}, i.lanes), broadcast(Mem{Base: zeroPoints}, i.lanes)
		i.forSteps(groupSize, steps{body: func(lanes, at int) {
			d := loadCodes(Mem{Base: codes, Disp: at}, lanes)
			VSUBPS(lower(zeroPoint, lanes), d, d)
			VMULPS(lower(scale, lanes), d, d)
			VMOVUPS(d, Mem{Base: weights, Disp: 4 * at})
		}, advance: func(elements int) {
			ADDQ(I32(int32(elements)), codes)
			ADDQ(I32(int32(elements*4)), weights)
		}})
		ADDQ(I32(4), scales)
		ADDQ(I32(4), zeroPoints)
	})
	VZEROUPPER()
	RET()
}

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
