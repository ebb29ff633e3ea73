package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// Groups of few float32, and groups of elements of 16 bits that fill registers, are looked at
// together, as many as a register has lanes: to join the lanes of each by itself takes longer than
// all else.

// togetherSizes are those of groups that are.
var togetherSizes = []int{16, 32}

// ends are the smallest and the largest weight of each of some groups, as keys.
type ends struct{ low, high VecVirtual }

// keys are how to compare keys of a size.
type keys struct{ least, greatest func(...Op) }

var keys16, keys32 = keys{VPMINSW, VPMAXSW}, keys{VPMINSD, VPMAXSD}

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
		all := i.endsOf(i.lanes, keys32, func() ends {
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

// shortsTogether is rangesTogether for elements of 16 bits.
func (i isa) shortsTogether(e element, weights, lo, hi, groups, groupSize GPVirtual) (largest GPVirtual) {
	magnitudes, kept, found := i.all(magnitudes16), i.all(bfloatKept), i.zeroed()
	places := i.places()
	TESTQ(I32(int32(2*i.lanes-1)), groupSize)
	JNE(LabelRef("together_other"))
	SUBQ(I32(int32(i.lanes)), groups)
	JL(LabelRef("together_few"))
	Label("together")
	next := 0
	all := i.endsOf(i.lanes, keys16, func() ends {
		next++
		return i.endsOfShorts(weights, groupSize, places[next-1], magnitudes)
	})
	for _, each := range []struct {
		end  VecVirtual
		join func(...Op)
		to   GPVirtual
	}{{all.low, VPMINSD, lo}, {all.high, VPMAXSD, hi}} {
		other := vector(i.lanes)
		VPSLLD(U8(16), each.end, other)
		each.join(other, each.end, each.end)
		i.key(each.end)
		i.and(kept, each.end, each.end)
		VPADDD(each.end, each.end, other) // without the sign
		VPMAXUD(other, found, found)
		VMOVUPS(i.widened(e, each.end), Mem{Base: each.to})
		ADDQ(I32(int32(4*i.lanes)), each.to)
	}
	size := GP64()
	IMUL3Q(I32(int32(e.size*i.lanes)), groupSize, size)
	ADDQ(size, weights)
	SUBQ(I32(int32(i.lanes)), groups)
	JGE(LabelRef("together"))
	Label("together_few")
	ADDQ(I32(int32(i.lanes)), groups)
	Label("together_other")
	return elements[0].reduce(found, VPMAXUD, Mem{})
}

// endsOfShorts are those of the lanes of one group, the halves of each lane apart.
func (i isa) endsOfShorts(weights, groupSize GPVirtual, group int, magnitudes VecVirtual) ends {
	from, left := GP64(), GP64()
	IMUL3Q(I32(int32(2*group)), groupSize, from)
	ADDQ(weights, from)
	MOVQ(groupSize, left)
	load := func(v VecVirtual) {
		sign := vector(i.lanes)
		VMOVUPS(Mem{Base: from}, v)
		VPSRAW(U8(15), v, sign)
		i.and(magnitudes, sign, sign)
		i.xor(sign, v, v)
		ADDQ(I32(int32(4*i.lanes)), from)
	}
	e := ends{vector(i.lanes), vector(i.lanes)}
	load(e.low)
	VMOVAPS(e.low, e.high)
	label := fmt.Sprintf("together_of%d", group)
	SUBQ(I32(int32(2*i.lanes)), left)
	JZ(LabelRef(label + "_done"))
	Label(label)
	v := vector(i.lanes)
	load(v)
	VPMINSW(v, e.low, e.low)
	VPMAXSW(v, e.high, e.high)
	SUBQ(I32(int32(2*i.lanes)), left)
	JNZ(LabelRef(label))
	Label(label + "_done")
	return e
}

// widened makes patterns of 16 bits, in the upper halves of lanes, float32.
func (i isa) widened(e element, v VecVirtual) VecVirtual {
	if e.name != "Float16" {
		return v
	}
	out := vector(i.lanes)
	VPSRLD(U8(16), v, out)
	if i.lanes == 16 {
		VPMOVDW(out, out.AsY())
		VCVTPH2PS(out.AsY(), out)
	} else {
		VPACKUSDW(out, out, out)
		VPERMQ(U8(0b1000), out, out)
		VCVTPH2PS(out.AsX(), out)
	}
	return out
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
func (i isa) endsOf(groups int, keys keys, ofGroup func() ends) ends {
	if groups == 1 {
		return ofGroup()
	}
	a, b := i.endsOf(groups/2, keys, ofGroup), i.endsOf(groups/2, keys, ofGroup)
	first, second := i.evenAndOdd(a.low, b.low, i.lanes/groups)
	if a.low != a.high {
		keys.least(second, first, a.low)
		first, second = i.evenAndOdd(a.high, b.high, i.lanes/groups)
		keys.greatest(second, first, a.high)
		return a
	}
	low := vector(i.lanes)
	keys.least(second, first, low)
	keys.greatest(second, first, first)
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
