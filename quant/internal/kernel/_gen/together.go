package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// Groups of few float32 are looked at together, as many as a register has lanes: to join the
// lanes of each by itself takes longer than all else.

// togetherSizes are those of groups that are.
var togetherSizes = []int{16, 32}

// ends are the smallest and the largest weight of each of some groups, as keys.
type ends struct{ low, high VecVirtual }

// rangesTogether takes as many of such groups as fill registers. It gives the largest magnitude,
// doubled.
func (i isa) rangesTogether(weights, lo, hi, groups, groupSize GPVirtual) (largest GPVirtual) {
	magnitudes, found := i.all(magnitude32), i.zeroed()
	places := i.places()
	for _, size := range togetherSizes {
		name := fmt.Sprintf("together%d", size)
		CMPQ(groupSize, I32(int32(size)))
		JNE(LabelRef(name + "_other"))
		SUBQ(I32(int32(i.lanes)), groups)
		JL(LabelRef(name + "_few"))
		Label(name)
		next := 0
		all := i.endsOf(i.lanes, func() ends {
			first := places[next] * size
			next++
			return i.endsOfGroup(weights, first, size)
		})
		for _, each := range []struct {
			end VecVirtual
			to  GPVirtual
		}{{all.low, lo}, {all.high, hi}} {
			i.key(each.end)
			VMOVUPS(each.end, Mem{Base: each.to})
			i.and(magnitudes, each.end, each.end)
			VPMAXUD(each.end, found, found)
			ADDQ(I32(int32(4*i.lanes)), each.to)
		}
		ADDQ(I32(int32(4*i.lanes*size)), weights)
		SUBQ(I32(int32(i.lanes)), groups)
		JGE(LabelRef(name))
		Label(name + "_few")
		ADDQ(I32(int32(i.lanes)), groups)
		Label(name + "_other")
	}
	largest = elements[0].reduce(found, VPMAXUD, Mem{})
	ADDL(largest, largest)
	return largest
}

// key makes a float32 a signed integer that orders like it, and back.
func (i isa) key(v VecVirtual) {
	flipped := vector(i.lanes)
	VPSRAD(U8(31), v, flipped)
	VPSRLD(U8(1), flipped, flipped)
	i.xor(flipped, v, v)
}

// endsOfGroup are those of the lanes of one group.
func (i isa) endsOfGroup(weights GPVirtual, first, size int) ends {
	var e ends
	for at := 0; at < size; at += i.lanes {
		v := i.get(Mem{Base: weights, Disp: 4 * (first + at)})
		i.key(v)
		switch at {
		case 0:
			e = ends{v, v}
		case i.lanes:
			e.low, e.high = vector(i.lanes), e.low
			VPMINSD(v, e.high, e.low)
			VPMAXSD(v, e.high, e.high)
		default:
			VPMINSD(v, e.low, e.low)
			VPMAXSD(v, e.high, e.high)
		}
	}
	return e
}

// endsOf joins so many groups, a lane or several for each, in the order of places.
func (i isa) endsOf(groups int, ofGroup func() ends) ends {
	if groups == 1 {
		return ofGroup()
	}
	a, b := i.endsOf(groups/2, ofGroup), i.endsOf(groups/2, ofGroup)
	first, second := i.evenAndOdd(a.low, b.low, i.lanes/groups)
	if a.low != a.high {
		VPMINSD(second, first, a.low)
		first, second = i.evenAndOdd(a.high, b.high, i.lanes/groups)
		VPMAXSD(second, first, a.high)
		return a
	}
	low := vector(i.lanes)
	VPMINSD(second, first, low)
	VPMAXSD(second, first, first)
	return ends{low, first}
}

// evenAndOdd are the even and the odd parts of both, of so many lanes.
func (i isa) evenAndOdd(a, b VecVirtual, lanes int) (even, odd VecVirtual) {
	even, odd = vector(i.lanes), vector(i.lanes)
	switch {
	case lanes == 8:
		VSHUFI32X4(U8(0x44), b, a, even)
		VSHUFI32X4(U8(0xee), b, a, odd)
	case lanes == 4 && i.lanes == 16:
		VSHUFI32X4(U8(0x88), b, a, even)
		VSHUFI32X4(U8(0xdd), b, a, odd)
	case lanes == 4:
		VPERM2I128(U8(0x20), b, a, even)
		VPERM2I128(U8(0x31), b, a, odd)
	case lanes == 2:
		VUNPCKLPD(b, a, even)
		VUNPCKHPD(b, a, odd)
	default:
		VSHUFPS(U8(0x88), b, a, even)
		VSHUFPS(U8(0xdd), b, a, odd)
	}
	return even, odd
}

// places are the lanes in which endsOf puts the groups.
func (i isa) places() []int {
	next := 0
	var in func(groups int) []int // the group in each lane
	in = func(groups int) []int {
		if groups == 1 {
			next++
			lanes := make([]int, i.lanes)
			for k := range lanes {
				lanes[k] = next - 1
			}
			return lanes
		}
		a, b := in(groups/2), in(groups/2)
		part := i.lanes / groups
		within := max(2*part, min(4, i.lanes)) // what evenAndOdd picks from, 128 bits but for longer parts
		if part == 4 {
			within = i.lanes
		}
		var lanes []int
		for first := 0; first < i.lanes; first += within {
			for _, from := range [][]int{a, b} {
				for at := first; at < first+within; at += 2 * part {
					lanes = append(lanes, from[at:at+part]...)
				}
			}
		}
		return lanes
	}
	places := make([]int, i.lanes)
	for lane, group := range in(i.lanes) {
		places[group] = lane
	}
	return places
}
