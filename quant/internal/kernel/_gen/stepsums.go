package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
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
	one := broadcast(one, i.lanes)
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
			addOnce(sumWeight, h)
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
