package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// In the functions of this file every lane has a group of a super-group. Where there are more
// lanes than groups, those of the upper half have the same groups, for other trials.

const (
	superSize  = 256
	trialLanes = 16
)

// Where the arrays of groupLanes begin, in its order.
const (
	laneLaid           = 0
	laneLaidImportance = laneLaid + 4*superSize
	laneCount          = laneLaidImportance + 4*superSize
	laneWeight         = laneCount + laneBytes
	laneSquare         = laneWeight + laneBytes
	laneScale          = laneSquare + laneBytes
	laneMinimum        = laneScale + laneBytes
	laneSlope          = laneMinimum + laneBytes
	laneScaleCost      = laneSlope + laneBytes
	laneMinimumCost    = laneScaleCost + laneBytes
	laneError          = laneMinimumCost + laneBytes
	lanePlainError     = laneError + laneBytes
	laneTriedScale     = lanePlainError + laneBytes
	laneTriedMinimum   = laneTriedScale + trialLanes*laneBytes
	laneTriedError     = laneTriedMinimum + trialLanes*laneBytes
)

// superGroup is some groups of one: as many as there are lanes, or all.
type superGroup struct {
	isa
	groups int // of the super-group
	base   GPVirtual
	part   int // the first group, by lanes
}

// superGroups emits code for all groups of a super-group.
func superGroups(i isa, groups int, each func(s superGroup)) {
	base := pointer("groups")
	for part := range max(1, groups/i.lanes) {
		each(superGroup{i, groups, base, part})
	}
}

// label is that of a loop of this part.
func (s superGroup) label(name string) string { return fmt.Sprintf("%s%d", name, s.part) }

// twice tells whether lanes have other trials of the same groups.
func (s superGroup) twice() bool { return s.lanes > s.groups }

// lower is an instruction set whose lanes have each group once.
func (s superGroup) lower() isa {
	if s.twice() {
		return isas[0]
	}
	return s.isa
}

// tries is how many vectors have all trials.
func (s superGroup) tries() GPVirtual {
	tries := GP64()
	MOVQ(argument("count"), tries)
	if s.twice() {
		SHRQ(Imm(1), tries)
	}
	return tries
}

func (s superGroup) at(array int) Mem { return Mem{Base: s.base, Disp: array + 4*s.lanes*s.part} }

// get loads a number of each group.
func (s superGroup) get(address Mem) VecVirtual {
	if !s.twice() {
		return s.isa.get(address)
	}
	v := ZMM()
	VBROADCASTF32X8(address, v)
	return v
}

// trialsOf goes over the trials of a pattern.
type trialsOf struct {
	superGroup
	next, tries GPVirtual
	upper       Register // masks the upper half of lanes, which has the trials after all of the lower ones
}

func (s superGroup) trialsOf(pattern GPVirtual) trialsOf {
	t := trialsOf{superGroup: s, next: GP64()}
	MOVQ(pattern, t.next)
	if s.twice() {
		bits := GP32()
		t.tries, t.upper = s.tries(), K()
		MOVL(U32(0xff00), bits)
		KMOVW(bits, t.upper)
	}
	return t
}

// load has the numbers of an array for the trial at hand.
func (t trialsOf) load(array int) VecVirtual {
	v := t.all(Mem{Base: t.next, Disp: array * laneBytes})
	if t.twice() {
		VBROADCASTSS(Mem{Base: t.next, Index: t.tries, Scale: 4, Disp: array * laneBytes}, t.upper, v)
	}
	return v
}

// advance goes to the next trial.
func (t trialsOf) advance() { ADDQ(I32(4), t.next) }

// forRows emits a loop over the weights of groups, with their importance, two a turn.
func (s superGroup) forRows(name string, each func(w, h VecVirtual)) {
	rows, left := GP64(), GP64()
	LEAQ(s.at(laneLaid), rows)
	MOVQ(U32(superSize/s.groups/2), left)
	Label(s.label(name))
	for k := range 2 {
		row := Mem{Base: rows, Disp: 4 * s.groups * k}
		each(s.get(row), s.get(row.Offset(laneLaidImportance)))
	}
	ADDQ(I32(int32(2*4*s.groups)), rows)
	DECQ(left)
	JNZ(LabelRef(s.label(name)))
}

// forPairs emits a loop over 16 trials, two a turn.
func (s superGroup) forPairs(name string, each func()) {
	left := GP64()
	MOVQ(U32(trialLanes/2), left)
	Label(s.label(name))
	each()
	DECQ(left)
	JNZ(LabelRef(s.label(name)))
}

// forTried emits a loop over what is tried, some vectors of trials a turn.
func (s superGroup) forTried(name string, together int, each func(tried GPVirtual)) {
	tried, left := GP64(), GP64()
	MOVQ(s.base, tried)
	MOVQ(s.tries(), left)
	Label(s.label(name))
	each(tried)
	ADDQ(I32(int32(together*laneBytes)), tried)
	SUBQ(I32(int32(together)), left)
	JNZ(LabelRef(s.label(name)))
}

// putFirst makes numbers those of the first trial.
func (s superGroup) putFirst(v VecVirtual, array int) { VMOVUPS(v, Mem{Base: s.base, Disp: array}) }

// least keeps the least of some numbers, which begin as Inf, and what belongs to it.
type least struct {
	isa
	kept []VecVirtual // the least, then the others
}

// newLeast keeps so many numbers, the least one included.
func (s superGroup) newLeast(numbers int) least {
	l := least{s.isa, []VecVirtual{s.all(infinity)}}
	for range numbers - 1 {
		l.kept = append(l.kept, s.all(none))
	}
	return l
}

// keep keeps what is less than before.
func (l least) keep(values ...Op) {
	number := vector(l.lanes)
	VMOVUPS(values[0], number)
	less := l.compare(lessQuiet, l.kept[0], number)
	for k, v := range values {
		l.choose(less, v, l.kept[k], l.kept[k])
	}
}

// joined has the lesser of both trials of a group, in lanes that have each group once.
func (s superGroup) joined(l least) least {
	if !s.twice() {
		return l
	}
	lower := least{isa: s.lower()}
	var upper []Op
	for _, v := range l.kept {
		half := YMM()
		VEXTRACTF64X4(U8(1), v, half)
		upper = append(upper, half)
		lower.kept = append(lower.kept, v.AsY().(VecVirtual))
	}
	lower.keep(upper...)
	return lower
}

// groupTrial is one of each group. What a trial without minimums has no use for is nil.
type groupTrial struct {
	scale, minimum, inverse, offset VecVirtual
	level, levelLevel, levelWeight  VecVirtual // sums
	total                           VecVirtual // of squared errors
}

// groupTrials take steps together: what waits for a step before it has others between.
type groupTrials []*groupTrial

// together takes as many at a time as leave registers to all.
func (trials groupTrials) together(i isa, add func(trials groupTrials)) {
	most := i.lanes / 8
	for first := 0; first < len(trials); first += most {
		add(trials[first : first+most])
	}
}

// levels gives the levels of a weight of each group.
func (trials groupTrials) levels(n *nearest, w VecVirtual) (levels []VecVirtual) {
	for _, t := range trials {
		y := vector(n.lanes)
		if t.offset == nil {
			VMULPS(w, t.inverse, y)
		} else {
			VMOVAPS(t.inverse, y)
			VFMADD213PS(t.offset, w, y)
		}
		levels = append(levels, y)
	}
	for _, y := range levels {
		VMAXPS(n.repeated(gridLow), y, y)
	}
	for _, y := range levels {
		VMINPS(n.repeated(gridHigh), y, y)
	}
	for _, y := range levels {
		n.round(y)
	}
	return levels
}

// addSums counts a weight of each group.
func (trials groupTrials) addSums(n *nearest, w, h VecVirtual) {
	levels, weighted := trials.levels(n, w), []VecVirtual{}
	for _, level := range levels {
		v := vector(n.lanes)
		VMULPS(level, h, v)
		weighted = append(weighted, v)
	}
	for k, t := range trials {
		if t.level != nil {
			VADDPS(weighted[k], t.level, t.level)
		}
	}
	for k, t := range trials {
		VFMADD231PS(levels[k], weighted[k], t.levelLevel)
	}
	for k, t := range trials {
		VFMADD231PS(w, weighted[k], t.levelWeight)
	}
}

// addErrors counts a weight of each group.
func (trials groupTrials) addErrors(n *nearest, w, h VecVirtual) {
	var rests []VecVirtual
	for k, level := range trials.levels(n, w) {
		t := trials[k]
		if t.minimum == nil {
			VFNMADD213PS(w, t.scale, level)
			rests = append(rests, level)
			continue
		}
		rest := vector(n.lanes)
		VADDPS(t.minimum, w, rest)
		VFNMADD231PS(level, t.scale, rest)
		rests = append(rests, rest)
	}
	for k, t := range trials {
		product := vector(n.lanes)
		VMULPS(rests[k], h, product)
		VFMADD231PS(rests[k], product, t.total)
	}
}
