package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
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
