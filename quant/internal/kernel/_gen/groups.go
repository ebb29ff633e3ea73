package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// layGroups lays the weights of groups side by side.
func layGroups(groups int) {
	function(fmt.Sprintf("layGroups%d", groups), "func(out, weights *float32)",
		"Of a super-group's weights, group by group, rows of one of each group.")
	out, weights := pointer("out"), pointer("weights")
	size := superSize / groups
	for first := 0; first < groups; first += 8 {
		for at := 0; at < size; at += 8 {
			var v [8]VecVirtual
			for k := range v {
				v[k] = isas[0].get(Mem{Base: weights, Disp: 4 * (size*(first+k) + at)})
			}
			for k, row := range transposed(v) {
				VMOVUPS(row, Mem{Base: out, Disp: 4 * (groups*(at+k) + first)})
			}
		}
	}
	VZEROUPPER()
	RET()
}

// takeMoments is that of the scalar kernel.
func takeMoments(groups int) {
	function(fmt.Sprintf("takeMoments%d", groups), "func(groups *float32)", "The sums of importance, of weighted weights, and of their squares.")
	superGroups(isas[0], groups, func(s superGroup) {
		count, weight, square := s.all(none), s.all(none), s.all(none)
		s.forRows("moments", func(w, h VecVirtual) {
			VADDPS(h, count, count)
			VMULPS(w, h, h)
			VADDPS(h, weight, weight)
			VMULPS(w, h, h)
			VADDPS(h, square, square)
		})
		VMOVUPS(count, s.at(laneCount))
		VMOVUPS(weight, s.at(laneWeight))
		VMOVUPS(square, s.at(laneSquare))
	})
	VZEROUPPER()
	RET()
}
