//go:build goexperiment.simd && go1.27

package kernel

import "unsafe"

// vectorSets has NEON alone, which every arm64 CPU has.
func vectorSets() []*vectorSet { return []*vectorSet{&neon} }

var neon = vectorSet{
	name:     "neon",
	ranges:   [...]func(*byte, int, int, *float32, *float32, int) bool{rangesFloat32NEON, rangesFloat16NEON, rangesBFloat16NEON},
	fit:      [...][3]func(*float32, *float32, int, float32, float32, *float32, *float32, *float32) bool{fitOf(IntegerZero), fitOf(FloatZero), fitOf(SymmetricZero)},
	code:     [...]func(*byte, int, int, *float32, *float32, float32, *byte, int){codeOf(Float32), codeOf(Float16), codeOf(BFloat16)},
	sums:     [...]func(*byte, int, int, *float32, *float32, *byte, *float64, int){sumsOf(Float32), sumsOf(Float16), sumsOf(BFloat16)},
	addTails: [...]addTails{tailsOf(Float32), tailsOf(Float16), tailsOf(BFloat16)},
	decode:   decodeNEON,
	pack:     packers((*packing).pack),
	unpack:   packers((*packing).unpack),
	packWide: [7]func(*byte, *byte, int){2: pack2NEON, 4: pack4NEON}, wideCodes: neonWideCodes, splitHalves: splitHalvesNEON,
	transpose: [...]func(**byte, int, int, *float32){transposeOf(Float32), transposeOf(Float16), transposeOf(BFloat16)},
	rowSums:   rowSumsNEON, stepSums: stepSumsNEON, stepSumsWeighted: stepSumsWeightedNEON, hqqSums: hqqSumsNEON,
	refine: [...][3]func(*float32, int, float32){refineOf(IntegerZero), refineOf(FloatZero), refineOf(SymmetricZero)},

	normalizeWeights: [...]func(*float32, *byte, int, int, *float32){normalizeOf(Float32), normalizeOf(Float16), normalizeOf(BFloat16)},
	scaleSearch:      [...][2]func(*float32, *float32, *float32, *float32, int, float32) float32{tableKind: twice(scaleSearchKind(tableKind)), floatKind: twice(scaleSearchKind(floatKind))},
	trialErrors:      [...][2]func(*float32, *float32, *float32, *float32, *float32, int){tableKind: twice(trialErrorsKind(tableKind)), floatKind: twice(trialErrorsKind(floatKind))},
	factorSearch:     twice(factorSearchNEON),
	levelSearch:      twice(levelSearchNEON),
	leastLane:        func(errors *float32) int { return leastTrial((*lanes)(unsafe.Pointer(errors))) },
	layGroups:        ofSizes(layGroupsOf), takeMoments: ofSizes(takeMomentsOf),
	minimumSearch: ofSizes(minimumSearchOf), groupFactorsMinimums: ofSizes(groupFactorsOf),
	groupScales16: groupScalesNEON, groupFactorsScales16: groupFactorsOf(16),
	unitCosts:     unitCostsNEON,
	minimumScales: minimumScalesNEON, factorScales: factorScalesNEON, multiples: multiplesNEON, unitParts: unitPartsNEON,
	powerScales: powerScalesNEON, groupCoders: groupCodersNEON,
	largestNumber: func(numbers *float32, n int) float32 { return largest(unsafe.Slice(numbers, n)) },
	encode:        [...][gridKinds]func(*byte, *float32, *byte, int, int, *float32, *float32, *float32){encodeOf(Float32), encodeOf(Float16), encodeOf(BFloat16)},
	decodedSums:   decodedSumsNEON,
	normalizeEnds: normalizeEndsNEON,
	levelScales:   levelScalesNEON,
	decodeLevels:  decodeLevelsNEON,
	decodeE4M3:    decodeE4M3NEON,

	areE4M3:     areE4M3NEON,
	areFactors:  areFactorsNEON,
	areMinimums: areMinimumsNEON,

	// Processors prefetch by themselves, and ordinary stores are not late for others.
	prefetch: func(uintptr, int) {},
	stream:   func(to, from *byte, n int) { copy(unsafe.Slice(to, n), unsafe.Slice(from, n)) },
	fence:    func() {},
}

// twice is a function that looks itself whether there is importance.
func twice[F any](f F) [2]F { return [2]F{f, f} }

func packers(which func(p *packing, to, from *byte, n int)) (packers [7]func(to, from *byte, n int)) {
	for _, width := range []int{2, 3, 4, 5, 6} {
		p := newPacking(width)
		packers[width] = func(to, from *byte, n int) { which(p, to, from, n) }
	}
	return packers
}
