package kernel

import "golang.org/x/sys/cpu"

//go:generate go -C _gen run . -out ../vector_amd64.s -stubs ../stubs_amd64.go -pkg kernel

// features are those of a CPU that vector kernels need; avx2 and avx512 are of its
// system, too.
type features struct {
	avx2, fma, bmi2, f16c bool
	avx512                bool // F, BW, DQ and VL
}

// present are the features of this CPU.
var present = features{
	avx2: cpu.X86.HasAVX2, fma: cpu.X86.HasFMA, bmi2: cpu.X86.HasBMI2, f16c: hasF16C(),
	avx512: cpu.X86.HasAVX512F && cpu.X86.HasAVX512BW && cpu.X86.HasAVX512DQ && cpu.X86.HasAVX512VL,
}

// vectorSets are those whose instructions this CPU and its system have, the fastest
// last.
func vectorSets() []*vectorSet { return present.sets() }

func (f features) sets() (sets []*vectorSet) {
	if f.avx2 && f.fma && f.bmi2 && f.f16c {
		sets = append(sets, &avx2)
		if f.avx512 {
			sets = append(sets, &avx512)
		}
	}
	return sets
}

var avx2 = vectorSet{
	name:   "avx2",
	ranges: [...]func(*byte, int, int, *float32, *float32, int) bool{rangesFloat32AVX2, rangesFloat16AVX2, rangesBFloat16AVX2},
	fit: [...][3]func(*float32, *float32, int, float32, float32, *float32, *float32, *float32) bool{
		IntegerZero:   {fitIntegerFloat32, fitIntegerFloat16, fitIntegerBFloat16},
		FloatZero:     {fitFloatFloat32, fitFloatFloat16, fitFloatBFloat16},
		SymmetricZero: {fitSymmetricFloat32, fitSymmetricFloat16, fitSymmetricBFloat16},
	},
	code:      [...]func(*byte, int, int, *float32, *float32, float32, *byte, int){codeFloat32AVX2, codeFloat16AVX2, codeBFloat16AVX2},
	sums:      [...]func(*byte, int, int, *float32, *float32, *byte, *float64, int){sumsFloat32AVX2, sumsFloat16AVX2, sumsBFloat16AVX2},
	addTails:  [...]addTails{addTailsFloat32, addTailsFloat16, addTailsBFloat16},
	decode:    decodeAVX2,
	pack:      [...]func(*byte, *byte, int){2: pack2, 3: pack3, 4: pack4, 5: pack5, 6: pack6},
	unpack:    [...]func(*byte, *byte, int){2: unpack2, 3: unpack3, 4: unpack4, 5: unpack5, 6: unpack6},
	packWide:  [7]func(*byte, *byte, int){2: pack2AVX2, 4: pack4AVX2},
	wideCodes: 32, splitHalves: splitHalves,
	transpose: [...]func(**byte, int, int, *float32){transposeFloat32, transposeFloat16, transposeBFloat16},
	rowSums:   rowSumsAVX2, stepSums: stepSumsAVX2, stepSumsWeighted: stepSumsWeightedAVX2, hqqSums: hqqSumsAVX2,
	refine: [...][3]func(*float32, int, float32){
		IntegerZero:   {refineIntegerFloat32AVX2, refineIntegerFloat16AVX2, refineIntegerBFloat16AVX2},
		FloatZero:     {refineFloatFloat32AVX2, refineFloatFloat16AVX2, refineFloatBFloat16AVX2},
		SymmetricZero: {refineSymmetricFloat32AVX2, refineSymmetricFloat16AVX2, refineSymmetricBFloat16AVX2},
	},
	normalizeWeights: [...]func(*float32, *byte, int, int, *float32){normalizeWeightsFloat32AVX2, normalizeWeightsFloat16AVX2, normalizeWeightsBFloat16AVX2},
	scaleSearch: [...][2]func(*float32, *float32, *float32, *float32, int, float32) float32{
		tableKind: {scaleSearchTableAVX2, scaleSearchTableWeightedAVX2}, floatKind: {scaleSearchFloatAVX2, scaleSearchFloatWeightedAVX2},
	},
	trialErrors: [...][2]func(*float32, *float32, *float32, *float32, *float32, int){
		tableKind: {trialErrorsTableAVX2, trialErrorsTableWeightedAVX2}, floatKind: {trialErrorsFloatAVX2, trialErrorsFloatWeightedAVX2},
	},
	factorSearch: [...]func(*float32, *float32, *float32, *float32, *float32, *float32, *float32, int){factorSearchAVX2, factorSearchWeightedAVX2},
	layGroups:    [...]func(*float32, *float32){layGroups8, layGroups16}, takeMoments: [...]func(*float32){takeMoments8, takeMoments16},
	minimumSearch:        [...]func(*float32, *float32, int, *float32){minimumSearch8AVX2, minimumSearch16AVX2},
	groupFactorsMinimums: [...]func(*float32, *float32, int, *float32, *float32, *float32, *float32){groupFactorsMinimums8AVX2, groupFactorsMinimums16AVX2},
	groupScales16:        groupScales16AVX2, groupFactorsScales16: groupFactorsScales16AVX2,
	levelSearch: [...]func(*float32, *float32, *float32, *float32, int, float32) int{levelSearchAVX2, levelSearchWeightedAVX2},
	leastLane:   leastLaneAVX2, unitCosts: unitCostsAVX2,
	minimumScales: minimumScales, factorScales: factorScales, multiples: multiples, largestNumber: largestNumber, unitParts: unitParts,
	powerScales: powerScales, groupCoders: groupCoders,
	encode: [...][gridKinds]func(*byte, *float32, *byte, int, int, *float32, *float32, *float32){
		{encodeEvenFloat32AVX2, encodeTableFloat32AVX2, encodeFloatFloat32AVX2},
		{encodeEvenFloat16AVX2, encodeTableFloat16AVX2, encodeFloatFloat16AVX2},
		{encodeEvenBFloat16AVX2, encodeTableBFloat16AVX2, encodeFloatBFloat16AVX2},
	},
	normalizeEnds: normalizeEndsAVX2,
	decodeLevels:  decodeLevelsAVX2, decodeE4M3: decodeE4M3AVX2, decodedSums: decodedSumsAVX2,
	levelScales: levelScales, areE4M3: areE4M3, areFactors: areFactors, areMinimums: areMinimums,
	prefetch: prefetch, stream: stream, fence: fence,
}

// avx512 has the functions of avx2 where wider vectors gain nothing.
var avx512 = func() vectorSet {
	v := avx2
	v.name = "avx512"
	v.ranges = [...]func(*byte, int, int, *float32, *float32, int) bool{rangesFloat32AVX512, rangesFloat16AVX512, rangesBFloat16AVX512}
	v.code = [...]func(*byte, int, int, *float32, *float32, float32, *byte, int){codeFloat32AVX512, codeFloat16AVX512, codeBFloat16AVX512}
	v.sums = [...]func(*byte, int, int, *float32, *float32, *byte, *float64, int){sumsFloat32AVX512, sumsFloat16AVX512, sumsBFloat16AVX512}
	v.decode = decodeAVX512
	v.packWide = [7]func(*byte, *byte, int){2: pack2AVX512, 4: pack4AVX512}
	v.wideCodes = 64
	v.rowSums, v.stepSums, v.stepSumsWeighted, v.hqqSums = rowSumsAVX512, stepSumsAVX512, stepSumsWeightedAVX512, hqqSumsAVX512
	v.refine = [...][3]func(*float32, int, float32){
		IntegerZero:   {refineIntegerFloat32AVX512, refineIntegerFloat16AVX512, refineIntegerBFloat16AVX512},
		FloatZero:     {refineFloatFloat32AVX512, refineFloatFloat16AVX512, refineFloatBFloat16AVX512},
		SymmetricZero: {refineSymmetricFloat32AVX512, refineSymmetricFloat16AVX512, refineSymmetricBFloat16AVX512},
	}
	v.normalizeWeights = [...]func(*float32, *byte, int, int, *float32){normalizeWeightsFloat32AVX512, normalizeWeightsFloat16AVX512, normalizeWeightsBFloat16AVX512}
	v.scaleSearch = [...][2]func(*float32, *float32, *float32, *float32, int, float32) float32{
		tableKind: {scaleSearchTableAVX512, scaleSearchTableWeightedAVX512}, floatKind: {scaleSearchFloatAVX512, scaleSearchFloatWeightedAVX512},
	}
	v.trialErrors = [...][2]func(*float32, *float32, *float32, *float32, *float32, int){
		tableKind: {trialErrorsTableAVX512, trialErrorsTableWeightedAVX512}, floatKind: {trialErrorsFloatAVX512, trialErrorsFloatWeightedAVX512},
	}
	v.factorSearch = [...]func(*float32, *float32, *float32, *float32, *float32, *float32, *float32, int){factorSearchAVX512, factorSearchWeightedAVX512}
	v.minimumSearch = [...]func(*float32, *float32, int, *float32){minimumSearch8AVX512, minimumSearch16AVX512}
	v.groupFactorsMinimums = [...]func(*float32, *float32, int, *float32, *float32, *float32, *float32){groupFactorsMinimums8AVX512, groupFactorsMinimums16AVX512}
	v.groupScales16, v.groupFactorsScales16 = groupScales16AVX512, groupFactorsScales16AVX512
	v.levelSearch = [...]func(*float32, *float32, *float32, *float32, int, float32) int{levelSearchAVX512, levelSearchWeightedAVX512}
	v.normalizeEnds = normalizeEndsAVX512
	v.decodeLevels, v.decodeE4M3 = decodeLevelsAVX512, decodeE4M3AVX512
	v.leastLane, v.unitCosts, v.decodedSums = leastLaneAVX512, unitCostsAVX512, decodedSumsAVX512
	v.encode = [...][gridKinds]func(*byte, *float32, *byte, int, int, *float32, *float32, *float32){
		{encodeEvenFloat32AVX512, encodeTableFloat32AVX512, encodeFloatFloat32AVX512},
		{encodeEvenFloat16AVX512, encodeTableFloat16AVX512, encodeFloatFloat16AVX512},
		{encodeEvenBFloat16AVX512, encodeTableBFloat16AVX512, encodeFloatBFloat16AVX512},
	}
	return v
}()
