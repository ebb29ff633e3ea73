// Command _gen writes the vector kernels: vector_amd64.s and the Go stubs of
// its functions, stubs_amd64.go. Run it with `go generate` in the folder above.
//
// Every function works on a run of groups of equal size, a multiple of 8. The
// arithmetic is that of the scalar kernel, operation by operation; fused
// multiply-add is used in searches of encodings, and else only where the product is exact.
package main

import . "github.com/mmcloughlin/avo/build"

// isa is an instruction set: the widest step is lanes float32 at a time.
type isa struct {
	name  string
	lanes int
}

var isas = []isa{{"AVX2", 8}, {"AVX512", 16}}

// element is a type of weights in memory.
type element struct {
	name string
	size int
}

var elements = []element{{"Float32", 4}, {"Float16", 2}, {"BFloat16", 2}}

func main() {
	ConstraintExpr("amd64")
	for _, i := range isas {
		for _, e := range elements {
			ranges(i, e)
			code(i, e)
			sums(i, e)
		}
		decodeCodes(i)
		rowSums(i)
		stepSums(i, false)
		stepSums(i, true)
		hqqSums(i)
		encodings(i)
	}
	for _, e := range elements {
		transpose(e)
		tails(e)
	}
	control()
	prefetch()
	stream()
	for _, i := range isas {
		packTogether(i, 2)
		packTogether(i, 4)
	}
	for _, zero := range []string{"Integer", "Float", "Symmetric"} {
		for _, scale := range []string{"Float32", "Float16", "BFloat16"} {
			fit(zero, scale)
			for _, i := range isas {
				refine(i, zero, scale)
			}
		}
	}
	for _, bitWidth := range []int{2, 3, 4, 5, 6} {
		pack(bitWidth)
		unpack(bitWidth)
	}
	splitHalves()
	for _, groups := range []int{8, 16} {
		layGroups(groups)
		takeMoments(groups)
	}
	minimumScales(isas[0])
	factorScales(isas[0])
	multiples(isas[0])
	largestNumber(isas[0])
	unitParts(isas[0])
	powerScales(isas[0])
	groupCoders(isas[0])
	stored(isas[0])
	levelScales(isas[0])
	f16c()
	Generate()
}

// encodings are the steps of encodings.
func encodings(i isa) {
	for _, kind := range grids {
		for _, e := range elements {
			encode(i, e, kind)
		}
		for _, v := range variants {
			if kind != "Even" {
				scaleSearch(i, kind, v.suffix, v.weighted)
				trialErrors(i, kind, v.suffix, v.weighted)
			}
		}
	}
	for _, v := range variants {
		factorSearch(i, v.suffix, v.weighted)
		levelSearch(i, v.suffix, v.weighted)
	}
	for _, groups := range []int{8, 16} {
		minimumSearch(i, groups)
		groupFactors(i, groups, true)
	}
	groupScales(i, 16)
	groupFactors(i, 16, false)
	leastTrial(i)
	for _, e := range elements {
		normalizeWeights(i, e)
	}
	normalizeEnds(i)
	decodeLevels(i)
	decodeE4M3(i)
	decodedSums(i)
	unitCosts(i)
}
