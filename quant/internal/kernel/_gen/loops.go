package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// forGroups emits a loop over the groups of a run.
func forGroups(name string, body func(groupSize GPVirtual)) {
	groups, groupSize := pointer("groups"), pointer("groupSize")
	each(name, groups, func() { body(groupSize) })
}

// each emits a loop over so many groups.
func each(name string, groups GPVirtual, body func()) {
	Label(name + "_group")
	TESTQ(groups, groups)
	JZ(LabelRef(name + "_done"))
	body()
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

// loopWhile goes on as long as so many codes are left, and takes some of them.
func loopWhile(name string, needed, taken, bitWidth int, left, codes, packed GPVirtual, body func()) {
	SUBQ(I32(int32(needed)), left)
	JL(LabelRef(name + "_done"))
	Label(name)
	body()
	ADDQ(I32(int32(taken)), codes)
	ADDQ(I32(int32(taken/8*bitWidth)), packed)
	SUBQ(I32(int32(taken)), left)
	JGE(LabelRef(name))
	Label(name + "_done")
	ADDQ(I32(int32(needed)), left)
}

// forSmallGroups emits a loop over groups of one vector or of two, of which it takes as many at a
// time as four vectors hold. It leaves those of other sizes, and the last ones.
func (i isa) forSmallGroups(groups, groupSize GPVirtual, four func(vectors int)) {
	for _, vectors := range []int{1, 2} {
		name := fmt.Sprintf("groups_of_%d", vectors*i.lanes)
		CMPQ(groupSize, U32(uint32(vectors*i.lanes)))
		JNE(LabelRef("not_" + name))
		SUBQ(I32(int32(4/vectors)), groups)
		JL(LabelRef(name + "_done"))
		Label(name)
		four(vectors)
		SUBQ(I32(int32(4/vectors)), groups)
		JGE(LabelRef(name))
		Label(name + "_done")
		ADDQ(I32(int32(4/vectors)), groups)
		Label("not_" + name)
	}
}
