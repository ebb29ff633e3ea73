package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// coder is that of the scalar kernel, for a vector of trials.
func (i isa) coder(scale, minimum VecVirtual) (inverse, offset VecVirtual) {
	inverse, offset = vector(i.lanes), vector(i.lanes)
	magnitude := vector(i.lanes)
	VDIVPS(scale, i.all(one), inverse)
	i.and(broadcast(magnitude32, i.lanes), inverse, magnitude)
	inverse = i.where(i.compare(lessQuiet, i.all(infinity), magnitude), inverse)
	VMULPS(inverse, minimum, offset)
	return inverse, offset
}

// lane is where a part of 16 scales or minimums lies.
func (i isa) lane(base GPVirtual, array, part int) Mem {
	return Mem{Base: base, Disp: array*laneBytes + 4*i.lanes*part}
}

// parts is how many vectors hold 16 trials.
func (i isa) parts() int { return 16 / i.lanes }

// get loads a vector.
func (i isa) get(address Mem) VecVirtual {
	v := vector(i.lanes)
	VMOVUPS(address, v)
	return v
}

// forWeights emits a loop over the weights of a group, with their importance if weighted, four
// a turn. Each takes a name for its labels.
func (i isa) forWeights(name string, weighted bool, each func(w, h VecVirtual)) {
	weights, importance, left := GP64(), GP64(), GP64()
	MOVQ(argument("weights"), weights)
	MOVQ(argument("n"), left)
	if weighted {
		MOVQ(argument("importance"), importance)
	}
	turn := func(n int) {
		for k := range n {
			var h VecVirtual
			if weighted {
				h = i.all(Mem{Base: importance, Disp: 4 * k})
			}
			each(i.all(Mem{Base: weights, Disp: 4 * k}), h)
		}
		ADDQ(I32(int32(4*n)), weights)
		if weighted {
			ADDQ(I32(int32(4*n)), importance)
		}
	}
	SUBQ(I32(4), left)
	JL(LabelRef(name + "_few"))
	Label(name + "_four")
	turn(4)
	SUBQ(I32(4), left)
	JGE(LabelRef(name + "_four"))
	Label(name + "_few")
	ADDQ(I32(4), left)
	JZ(LabelRef(name + "_done"))
	Label(name)
	turn(1)
	DECQ(left)
	JNZ(LabelRef(name))
	Label(name + "_done")
}

// trial is a vector of trials, which have no minimums, while sums are made of them.
type trial struct{ scale, inverse, levelLevel, levelWeight VecVirtual }

// add counts a weight.
func (t *trial) add(n *nearest, w, h VecVirtual) {
	y := vector(n.lanes)
	VMULPS(w, t.inverse, y)
	level := n.level(y)
	weighted := level
	if h != nil {
		weighted = vector(n.lanes)
		VMULPS(level, h, weighted)
	}
	VFMADD231PS(w, weighted, t.levelWeight)
	VFMADD231PS(level, weighted, t.levelLevel)
}

// variants are of functions that weigh by importance or not.
var variants = []struct {
	suffix   string
	weighted bool
}{{"", false}, {"Weighted", true}}

// errorTrial is a vector of trials, which have no minimums, while errors are added up.
type errorTrial struct{ scale, inverse, total VecVirtual }

// addErrors adds the errors of all weights.
func addErrors(n *nearest, weighted bool, trials []*errorTrial) {
	n.keep()
	n.forWeights("errors", weighted, func(w, h VecVirtual) {
		for _, e := range trials {
			e.add(n, w, h)
		}
	})
}

func (e *errorTrial) add(n *nearest, w, h VecVirtual) {
	y := vector(n.lanes)
	VMULPS(w, e.inverse, y)
	rest := n.level(y)
	VFNMADD213PS(w, e.scale, rest)
	product := rest
	if h != nil {
		product = vector(n.lanes)
		VMULPS(rest, h, product)
	}
	VFMADD231PS(rest, product, e.total)
}
