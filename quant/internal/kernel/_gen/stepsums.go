package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// rowSums is the sum of the rows of a tile.
func rowSums(i isa) {
	function("rowSums"+i.name, "func(sums, tile *float32, n int)", "The sums of n rows of a tile.")
	sums := pointer("sums")
	for first := 0; first < 16; first += i.lanes {
		tile, left := GP64(), GP64()
		MOVQ(argument("tile"), tile)
		MOVQ(argument("n"), left)
		total := i.zeroed()
		label := fmt.Sprintf("lane%d", first)
		Label(label)
		VADDPS(Mem{Base: tile, Disp: 4 * first}, total, total)
		ADDQ(I32(laneBytes), tile)
		DECQ(left)
		JNZ(LabelRef(label))
		VMOVUPS(total, Mem{Base: sums, Disp: 4 * first})
	}
	VZEROUPPER()
	RET()
}

// stepSums are the sums of a tile.
func stepSums(i isa, weighted bool) {
	name, signature, doc := "stepSums", "func(lanes, tile *float32, n int, maxCode float32)", "The sums of n rows of a tile, but for their weight."
	if weighted {
		name, signature = "stepSumsWeighted", "func(lanes, tile, importance *float32, n int, maxCode float32)"
	}
	function(name+i.name, signature, doc)
	lanes := pointer("lanes")
	maxCode := vector(i.lanes)
	VBROADCASTSS(argument("maxCode"), maxCode)
	zero := zeroed(i.lanes)
	one := broadcast(one, i.lanes)
	for first := 0; first < 16; first += i.lanes {
		array := func(k int) Mem { return Mem{Base: lanes, Disp: k*searchBytes + 4*first} }
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
		var totals [sumWeight]VecVirtual
		for k := sumCode; k < sumWeight; k++ {
			totals[k] = zeroed(i.lanes)
		}
		add := func(k int, v VecVirtual) { VADDPS(v, totals[k], totals[k]) }
		// addOnce is the same sum by another unit of the processor, which those of products leave idle.
		addOnce := func(k int, v VecVirtual) { VFMADD231PS(one, v, totals[k]) }
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
			weightedCode, weightedRest = product(h, q), product(h, r)
			ADDQ(I32(laneBytes), importance)
		}
		addOnce(sumCode, weightedCode)
		if weighted {
			add(sumCodeCode, product(weightedCode, q))
		} else {
			VFMADD231PS(q, q, totals[sumCodeCode]) // the product is exact
		}
		addOnce(sumRest, weightedRest)
		add(sumRestCode, product(weightedRest, q))
		add(sumRestRest, product(weightedRest, r))
		ADDQ(I32(laneBytes), tile)
		DECQ(left)
		JNZ(LabelRef(label))
		for k := sumCode; k < sumWeight; k++ {
			VMOVUPS(totals[k], array(k))
		}
	}
	VZEROUPPER()
	RET()
}
