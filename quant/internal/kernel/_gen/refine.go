package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// refine does for as many lanes as a register has at a time what the function of that name does
// in search.go, and keeps the best of both of its results.
func refine(i isa, zero, scale string) {
	function("refine"+zero+scale+i.name, "func(lanes *float32, n int, maxCode float32)",
		"Keeps the least error, and the refined parameters that promise the least, of n lanes, a multiple of 16.")
	lanes, left := pointer("lanes"), pointer("n")
	array := func(k int) Mem { return Mem{Base: lanes, Disp: k * searchBytes} }
	get := func(k int) VecVirtual { return i.get(array(k)) }
	operation := func(instruction func(ops ...Op)) func(a, b Op) VecVirtual {
		return func(a, b Op) VecVirtual { // a must be a register
			out := vector(i.lanes)
			instruction(b, a, out)
			return out
		}
	}
	add, subtract := operation(VADDPS), operation(VSUBPS)
	multiply, divide := operation(VMULPS), operation(VDIVPS)
	ifPositive := func(a, b VecVirtual) VecVirtual { return i.where(i.compare(greater, i.zeroed(), b), a) }
	Label("next")
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
			z = divide(z, add(slope, i.all(one)))
			VMAXPS(i.zeroed(), z, z)
			VMINPS(i.all(argument("maxCode")), z, z)
			i.round(z)
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
	factor := add(slope, i.all(one))
	s := multiply(factor, array(currentScale))
	i.roundScale(scale, s)
	inverse := divide(i.all(one), s)
	if zero == "Float" {
		mean := add(get(sumRest), array(sumCode))
		mean = subtract(divide(mean, array(sumWeight)), array(currentZeroPoint))
		ratio := multiply(inverse, array(currentScale))
		z = divide(get(sumCode), array(sumWeight))
		z = subtract(z, multiply(ratio, mean))
		z = add(z, i.zeroed()) // never -0.0
	}
	square := multiply(get(currentScale), array(baseInverse))
	VMULPS(square, square, square)
	promise = multiply(promise, square)
	within := i.compare(greater, i.zeroed(), factor)
	require := func(predicate uint8, v VecVirtual, bound Mem) {
		magnitude := vector(i.lanes)
		i.and(i.all(magnitude32), v, magnitude)
		i.both(i.compare(predicate, i.all(bound), magnitude), within)
	}
	require(atLeast, s, minPlain)
	require(atMost, s, maxPlain)
	require(atMost, z, largestZeroPoint)
	i.choose(within, promise, i.all(infinity), promise)

	// keep puts values where a is less than what stands at the first place.
	keep := func(a VecVirtual, first int, values ...VecVirtual) {
		less := i.compare(less, array(first), a)
		for k, v := range append([]VecVirtual{a}, values...) {
			i.choose(less, v, get(first+k), v)
			VMOVUPS(v, array(first+k))
		}
	}
	keep(promise, nextPromise, s, inverse, z)
	VMULPS(array(sumRestRest), square, square)
	keep(square, leastError, get(currentScale), get(currentInverse), get(currentZeroPoint))
	ADDQ(I32(int32(4*i.lanes)), lanes)
	SUBQ(I32(int32(i.lanes)), left)
	JG(LabelRef("next"))
	VZEROUPPER()
	RET()
}
