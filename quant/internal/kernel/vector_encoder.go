package kernel

import "unsafe"

// vectorSteps are those of the reference, with vectors. What is left of multiples of 8
// weights is the reference's where lanes are weights.
func (v *vectorSet) vectorSteps() *encoderSteps {
	return &encoderSteps{
		v.rangesOf, v.normalizeEndsOf, v.plainOfLayer, v.plainPowers, v.makeCoders, v.normalize,
		v.plainScales, v.takeMultiples, v.largest, v.roundUnits, v.takeGroups, v.searchMinimums, v.searchScales, v.searchScale, v.addUnitCosts, v.searchFactors, v.addTrialErrors,
		v.searchLevels, func(errors *lanes) int { return v.leastLane(&errors[0]) }, v.encodeWeights, v.packLevels,
		v.decodeGroups, v.addSums,
	}
}

// weighted is 1 for the functions that weigh by importance, whose address it gives, and 0
// for the others.
func weighted(importance []float32) (which int, first *float32) {
	if importance == nil {
		return 0, nil
	}
	return 1, &importance[0]
}

func (v *vectorSet) rangesOf(weights []byte, t ElementType, lo, hi []float32) bool {
	return t != Float64 && !v.ranges[t](&weights[0], len(lo), len(weights)/t.Size()/len(lo), &lo[0], &hi[0], 0)
}

// normalizeEndsOf also changes what is behind the groups: slices are those of an encoder.
func (v *vectorSet) normalizeEndsOf(lo, hi, normal, inverse []float32) {
	v.normalizeEnds(&lo[0], &hi[0], &normal[0], &inverse[0], len(lo))
}

// plainOfLayer also changes what is behind the groups.
func (v *vectorSet) plainOfLayer(lo, hi, normal, inverse, scale []float32, high, layerScale float32) (groups int) {
	if v.levelScales(&lo[0], &hi[0], &normal[0], &inverse[0], &scale[0], len(lo), high, layerScale) {
		return len(lo)
	}
	return plainOfLayer(lo, hi, normal, inverse, scale, high, layerScale)
}

// plainPowers also changes what is behind the groups.
func (v *vectorSet) plainPowers(lo, hi, inverse, scale []float32, high float32) (groups int) {
	if v.powerScales(&lo[0], &hi[0], &inverse[0], &scale[0], len(lo), int32(exponentOf(high))) {
		return len(lo)
	}
	return plainPowers(lo, hi, inverse, scale, high)
}

// makeCoders also changes what is behind the groups.
func (v *vectorSet) makeCoders(scale, minimum, inverse, offset []float32) {
	v.groupCoders(&scale[0], &minimum[0], &inverse[0], &offset[0], len(inverse))
}

func (v *vectorSet) normalize(out []float32, weights []byte, t ElementType, factors []float32) {
	size := len(out) / len(factors) &^ 7
	if t == Float64 || size == 0 {
		normalize(out, weights, t, factors)
		return
	}
	v.normalizeWeights[t](&out[0], &weights[0], len(factors), size, &factors[0])
	if len(factors) == 1 && size < len(out) {
		normalize(out[size:], weights[size*t.Size():], t, factors)
	}
}

func (v *vectorSet) searchScale(pattern *lanes, scale float32, g *grid, weights, importance []float32) float32 {
	which, h := weighted(importance)
	return v.scaleSearch[g.kind][which](&pattern[0], &g.vectors.low[0], &weights[0], h, len(weights), scale)
}

func (v *vectorSet) addTrialErrors(errors *lanes, g *grid, t *trials, weights, importance []float32) {
	which, h := weighted(importance)
	v.trialErrors[g.kind][which](&errors[0], &t.scale[0], &g.vectors.low[0], &weights[0], h, len(weights))
}

func (v *vectorSet) searchLevels(levels *lanes, normal float32, g *grid, weights, importance []float32) int {
	which, h := weighted(importance)
	return v.levelSearch[which](&levels[0], &g.vectors.low[0], &weights[0], h, len(weights), normal)
}

func (v *vectorSet) encodeWeights(codes []uint8, tile []float32, g *grid, weights []byte, t ElementType, normal, inverse, offset []float32) {
	if t == Float64 {
		normalize(tile, weights, t, normal)
		weights, t, normal = unsafe.Slice(bytesOf(tile), 4*len(tile)), Float32, unscaled[:len(normal)]
	}
	size := len(codes) / len(inverse) &^ 7
	if size > 0 {
		v.encode[t][g.kind](&codes[0], &g.vectors.low[0], &weights[0], len(inverse), size, &normal[0], &inverse[0], &offset[0])
	}
	if len(inverse) == 1 && size < len(codes) {
		encode(codes[size:], tile[size:], g, weights[size*t.Size():], t, normal, inverse, offset)
	}
}

func (v *vectorSet) packLevels(packed []byte, codes []uint8, bitWidth int) {
	if bitWidth == 8 {
		copy(packed, codes)
		return
	}
	whole := len(codes) &^ 7
	if whole > 0 {
		v.pack[bitWidth](&packed[0], &codes[0], whole)
	}
	pack(packed[RowBytes(whole, bitWidth):], codes[whole:], bitWidth)
}

func (v *vectorSet) decodeGroups(weights []float32, codes []uint8, levels, scales, zeroPoints []float32) {
	size := len(codes) / len(scales) &^ 7
	if size > 0 {
		v.decodeCodes(&codes[0], levels, len(scales), size, bytesOf(scales), bytesOf(zeroPoints), bytesOf(weights))
	}
	if len(scales) == 1 {
		decodeGroups(weights[size:], codes[size:], levels, scales, zeroPoints)
	}
}

// bytesOf is where numbers begin.
func bytesOf(values []float32) *byte { return (*byte)(unsafe.Pointer(&values[0])) }

func (v *vectorSet) addSums(sums *laneSums, weights, decoded []float32) {
	whole := len(weights) &^ 7
	if whole > 0 {
		v.decodedSums(&weights[0], &decoded[0], whole, &sums.error[0])
	}
	sums.add(weights[whole:], decoded[whole:])
}
