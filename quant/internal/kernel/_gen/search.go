package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// In the search every lane has a group of its own, so that all lanes do what the
// scalar search does with one group. A tile is n rows of 16 weights.
const laneBytes = 16 * 4

// transpose makes a tile of 16 groups.
func transpose(e element) {
	function("transpose"+e.name, "func(groups **byte, offset, n int, tile *float32)",
		"Weights of 16 groups, from a byte offset on, as n rows of a tile; n is a multiple of 8.")
	groups, tile := pointer("groups"), pointer("tile")
	for half := range 2 {
		at, to, left := GP64(), GP64(), GP64()
		MOVQ(argument("offset"), at)
		MOVQ(argument("n"), left)
		LEAQ(Mem{Base: tile, Disp: half * 32}, to)
		var from [8]GPVirtual
		for k := range from {
			from[k] = GP64()
			MOVQ(Mem{Base: groups, Disp: 8 * (8*half + k)}, from[k])
		}
		label := fmt.Sprintf("half%d", half)
		Label(label)
		var v [8]VecVirtual
		for k := range v {
			v[k] = e.load(Mem{Base: from[k], Index: at, Scale: 1}, 8)
		}
		for k, row := range transposed(v) {
			VMOVUPS(row, Mem{Base: to, Disp: k * laneBytes})
		}
		ADDQ(I32(int32(8*e.size)), at)
		ADDQ(I32(8*laneBytes), to)
		SUBQ(I32(8), left)
		JG(LabelRef(label))
	}
	VZEROUPPER()
	RET()
}

// transposed exchanges rows and columns: first of pairs, then of pairs of
// pairs, then of halves.
func transposed(v [8]VecVirtual) (out [8]VecVirtual) {
	both := func(low, high func(Op, Op, Op), a, b VecVirtual) (VecVirtual, VecVirtual) {
		l, h := YMM(), YMM()
		low(b, a, l)
		high(b, a, h)
		return l, h
	}
	for k := 0; k < 8; k += 2 {
		v[k], v[k+1] = both(func(b, a, l Op) { VUNPCKLPS(b, a, l) }, func(b, a, h Op) { VUNPCKHPS(b, a, h) }, v[k], v[k+1])
	}
	var w [8]VecVirtual
	for k := 0; k < 8; k += 4 {
		for j := range 2 {
			w[k+2*j], w[k+2*j+1] = both(func(b, a, l Op) { VUNPCKLPD(b, a, l) }, func(b, a, h Op) { VUNPCKHPD(b, a, h) }, v[k+j], v[k+2+j])
		}
	}
	for k := range 4 {
		out[k], out[k+4] = both(func(b, a, l Op) { VPERM2F128(U8(0x20), b, a, l) }, func(b, a, h Op) { VPERM2F128(U8(0x31), b, a, h) }, w[k], w[k+4])
	}
	return out
}

// Arrays of 16 float32 within searchLanes, in its order.
const (
	currentScale = iota
	currentInverse
	currentZeroPoint
	sumCode
	sumCodeCode
	sumRest
	sumRestCode
	sumRestRest
	sumWeight
	baseInverse
	leastError
	bestScale
	bestInverse
	bestZeroPoint
	nextPromise
	nextScale
	nextInverse
	nextZeroPoint
	thresholds
)

// stepSums adds the sums of a tile.
func stepSums(i isa, weighted bool) {
	name, signature, doc := "stepSums", "func(lanes, tile *float32, n int, maxCode float32)", "Adds the sums of n rows of a tile to those of lanes."
	if weighted {
		name, signature = "stepSumsWeighted", "func(lanes, tile, importance *float32, n int, maxCode float32)"
	}
	function(name+i.name, signature, doc)
	lanes := pointer("lanes")
	maxCode := vector(i.lanes)
	VBROADCASTSS(argument("maxCode"), maxCode)
	zero := zeroed(i.lanes)
	for first := 0; first < 16; first += i.lanes {
		array := func(k int) Mem { return Mem{Base: lanes, Disp: k*laneBytes + 4*first} }
		tile, left := GP64(), GP64()
		MOVQ(argument("tile"), tile)
		MOVQ(argument("n"), left)
		var importance GPVirtual
		if weighted {
			importance = pointer("importance")
		}
		inverse, zeroPoint := vector(i.lanes), vector(i.lanes)
		VMOVUPS(array(currentInverse), inverse)
		VMOVUPS(array(currentZeroPoint), zeroPoint)
		totals := map[int]VecVirtual{}
		for k := sumCode; k <= sumWeight; k++ {
			if k != sumWeight || weighted {
				totals[k] = zeroed(i.lanes)
			}
		}
		add := func(k int, v VecVirtual) { VADDPS(v, totals[k], totals[k]) }
		product := func(a, b VecVirtual) VecVirtual {
			p := vector(i.lanes)
			VMULPS(b, a, p)
			return p
		}
		label := fmt.Sprintf("lane%d", first)
		Label(label)
		v, q := vector(i.lanes), vector(i.lanes)
		VMULPS(Mem{Base: tile, Disp: 4 * first}, inverse, v)
		VADDPS(zeroPoint, v, v)
		VMAXPS(zero, v, q)
		VMINPS(maxCode, q, q)
		i.round(q)
		r := v
		VSUBPS(q, v, r)
		weightedCode, weightedRest := q, r
		if weighted {
			h := vector(i.lanes)
			VMOVUPS(Mem{Base: importance, Disp: 4 * first}, h)
			add(sumWeight, h)
			weightedCode, weightedRest = product(h, q), product(h, r)
			ADDQ(I32(laneBytes), importance)
		}
		add(sumCode, weightedCode)
		if weighted {
			add(sumCodeCode, product(weightedCode, q))
		} else {
			VFMADD231PS(q, q, totals[sumCodeCode]) // the product is exact
		}
		add(sumRest, weightedRest)
		add(sumRestCode, product(weightedRest, q))
		add(sumRestRest, product(weightedRest, r))
		ADDQ(I32(laneBytes), tile)
		DECQ(left)
		JNZ(LabelRef(label))
		for k := sumCode; k <= sumWeight; k++ {
			if total, ok := totals[k]; ok {
				VADDPS(array(k), total, total)
				VMOVUPS(total, array(k))
			}
		}
	}
	VZEROUPPER()
	RET()
}

// Constants of power in hqq.go, as bits.
var (
	exponent   = constant("exponent", 0xbe99999a)
	powerFirst = constant("powerFirst", 0x4ea508b2)
	tenth      = constant("tenth", 0x3dcccccd)
)

const powerRefined = 3

// hqqSums adds the sums of a tile: pull at sumRest, and restRest.
func hqqSums(i isa) {
	function("hqqSums"+i.name, "func(lanes, tile *float32, n int, maxCode float32)",
		"Adds the sums of n rows of a tile to those of lanes, for half-quadratic quantization.")
	lanes := pointer("lanes")
	maxCode := vector(i.lanes)
	VBROADCASTSS(argument("maxCode"), maxCode)
	zero, ones, sign := zeroed(i.lanes), broadcast(one, i.lanes), broadcast(signBit, i.lanes)
	product := func(a, b VecVirtual) VecVirtual {
		p := vector(i.lanes)
		VMULPS(b, a, p)
		return p
	}
	for first := 0; first < 16; first += i.lanes {
		array := func(k int) Mem { return Mem{Base: lanes, Disp: k*laneBytes + 4*first} }
		tile, left := GP64(), GP64()
		MOVQ(argument("tile"), tile)
		MOVQ(argument("n"), left)
		pull, restRest := zeroed(i.lanes), zeroed(i.lanes)
		label := fmt.Sprintf("lane%d", first)
		Label(label)
		r, q := vector(i.lanes), vector(i.lanes)
		VMOVUPS(Mem{Base: tile, Disp: 4 * first}, r)
		VMULPS(array(currentInverse), r, r)
		VADDPS(array(currentZeroPoint), r, r)
		VMAXPS(zero, r, q)
		VMINPS(maxCode, q, q)
		i.round(q)
		VSUBPS(q, r, r)
		square := product(r, r)
		VADDPS(square, restRest, restRest)
		signs, x := vector(i.lanes), vector(i.lanes)
		i.and(sign, r, signs)
		i.xor(signs, r, x)
		y := vector(i.lanes)
		VCVTDQ2PS(x, y)
		VMULPS(broadcast(exponent, i.lanes), y, y)
		VADDPS(broadcast(powerFirst, i.lanes), y, y)
		VCVTPS2DQ(y, y)
		cube := product(x, x)
		VMULPS(x, cube, cube)
		for range powerRefined {
			y2 := product(y, y)
			change := product(y2, y2)
			VMULPS(change, change, change)
			VMULPS(y2, change, change)
			VMULPS(cube, change, change)
			VSUBPS(change, ones, change)
			VMULPS(change, y, change)
			VMULPS(broadcast(tenth, i.lanes), change, change)
			VADDPS(change, y, y)
		}
		VMULPS(array(thresholds), y, y)
		VSUBPS(y, x, x)
		VMAXPS(zero, x, x)
		i.or(signs, x, x)
		VSUBPS(x, r, r)
		VADDPS(r, pull, pull)
		ADDQ(I32(laneBytes), tile)
		DECQ(left)
		JNZ(LabelRef(label))
		VADDPS(array(sumRest), pull, pull)
		VMOVUPS(pull, array(sumRest))
		VADDPS(array(sumRestRest), restRest, restRest)
		VMOVUPS(restRest, array(sumRestRest))
	}
	VZEROUPPER()
	RET()
}

// round rounds to whole numbers, ties to even.
func (i isa) round(v VecVirtual) {
	if i.lanes == 16 {
		VRNDSCALEPS(U8(0), v, v)
	} else {
		VROUNDPS(U8(0), v, v)
	}
}

// Bitwise operations, which are not the same instructions for both.
func (i isa) and(a, b, out VecVirtual) { i.bitwise(VANDPS, VPANDD, a, b, out) }
func (i isa) xor(a, b, out VecVirtual) { i.bitwise(VXORPS, VPXORD, a, b, out) }
func (i isa) or(a, b, out VecVirtual)  { i.bitwise(VORPS, VPORD, a, b, out) }

func (i isa) bitwise(avx2, avx512 func(ops ...Op), a, b, out VecVirtual) {
	if i.lanes == 16 {
		avx512(a, b, out)
	} else {
		avx2(a, b, out)
	}
}

// Bounds of refine, as bits.
var (
	infinity         = constant("infinity", 0x7f800000)
	largestZeroPoint = constant("largestZeroPoint", 0x46800000) // 2^14
)

// refine does for 8 lanes at a time what the function of that name does in
// search.go, and keeps the best of both of its results.
func refine(zero, scale string) {
	function("refine"+zero+scale, "func(lanes *float32, maxCode float32)",
		"Keeps the least error, and the refined parameters that promise the least.")
	lanes, halves := pointer("lanes"), GP64()
	MOVQ(I32(2), halves)
	array := func(k int) Mem { return Mem{Base: lanes, Disp: k * laneBytes} }
	get := func(k int) VecVirtual {
		v := YMM()
		VMOVUPS(array(k), v)
		return v
	}
	operation := func(instruction func(ops ...Op)) func(a, b Op) VecVirtual {
		return func(a, b Op) VecVirtual { // a must be a register
			out := YMM()
			instruction(b, a, out)
			return out
		}
	}
	add, subtract := operation(VADDPS), operation(VSUBPS)
	multiply, divide := operation(VMULPS), operation(VDIVPS)
	// ifPositive is a where b > 0, else 0.
	ifPositive := func(a, b VecVirtual) VecVirtual {
		mask := YMM()
		VCMPPS(U8(14), zeroed(8), b, mask)
		VANDPS(a, mask, mask)
		return mask
	}
	Label("half")
	var slope, promise, z VecVirtual
	if zero != "Symmetric" {
		d := multiply(get(sumWeight), array(sumCodeCode))
		code := get(sumCode)
		d = subtract(d, multiply(code, code))
		n := multiply(get(sumWeight), array(sumRestCode))
		n = subtract(n, multiply(code, array(sumRest)))
		slope = ifPositive(divide(n, d), d)
		offset := subtract(get(sumRest), multiply(slope, code))
		offset = divide(offset, array(sumWeight))
		if zero == "Float" {
			promise = subtract(get(sumRestRest), multiply(slope, array(sumRestCode)))
			promise = subtract(promise, multiply(offset, array(sumRest)))
		} else {
			z = subtract(get(currentZeroPoint), offset)
			z = divide(z, add(slope, all(one)))
			VMAXPS(zeroed(8), z, z)
			maxCode := YMM()
			VBROADCASTSS(argument("maxCode"), maxCode)
			VMINPS(maxCode, z, z)
			VROUNDPS(U8(0), z, z)
		}
	} else {
		z = get(currentZeroPoint)
	}
	if zero != "Float" {
		moved := subtract(z, array(currentZeroPoint))
		step := subtract(get(sumCode), multiply(z, array(sumWeight)))
		stepStep := subtract(get(sumCodeCode), multiply(z, add(step, array(sumCode))))
		restStep := subtract(get(sumRestCode), multiply(z, array(sumRest)))
		restStep = add(restStep, multiply(moved, step))
		slope = ifPositive(divide(restStep, stepStep), stepStep)
		restRest := add(multiply(moved, array(sumWeight)), array(sumRest))
		restRest = add(restRest, array(sumRest))
		restRest = add(multiply(moved, restRest), array(sumRestRest))
		promise = subtract(restRest, multiply(slope, restStep))
	}
	factor := add(slope, all(one))
	s := multiply(factor, array(currentScale))
	roundScale(scale, s)
	inverse := divide(all(one), s)
	if zero == "Float" {
		mean := add(get(sumRest), array(sumCode))
		mean = subtract(divide(mean, array(sumWeight)), array(currentZeroPoint))
		ratio := multiply(inverse, array(currentScale))
		z = divide(get(sumCode), array(sumWeight))
		z = subtract(z, multiply(ratio, mean))
		z = add(z, zeroed(8)) // never -0.0
	}
	square := multiply(get(currentScale), array(baseInverse))
	VMULPS(square, square, square)
	promise = multiply(promise, square)
	within := YMM()
	require := func(predicate uint8, v, bound VecVirtual) {
		t := YMM()
		VCMPPS(U8(predicate), bound, v, t)
		VANDPS(t, within, within)
	}
	VCMPPS(U8(14), zeroed(8), factor, within) // factor > 0
	t := YMM()
	VANDPS(all(magnitude32), s, t)
	require(13, t, all(minPlain)) // >=
	require(2, t, all(maxPlain))  // <=
	VANDPS(all(magnitude32), z, t)
	require(2, t, all(largestZeroPoint))
	VBLENDVPS(within, promise, all(infinity), promise)

	// keep puts values where a is less than what stands at the first place.
	keep := func(a VecVirtual, first int, values ...VecVirtual) {
		mask := YMM()
		VCMPPS(U8(1), array(first), a, mask)
		for k, v := range append([]VecVirtual{a}, values...) {
			VBLENDVPS(mask, v, get(first+k), v)
			VMOVUPS(v, array(first+k))
		}
	}
	keep(promise, nextPromise, s, inverse, z)
	VMULPS(array(sumRestRest), square, square)
	keep(square, leastError, get(currentScale), get(currentInverse), get(currentZeroPoint))
	ADDQ(I32(32), lanes)
	DECQ(halves)
	JNZ(LabelRef("half"))
	VZEROUPPER()
	RET()
}
