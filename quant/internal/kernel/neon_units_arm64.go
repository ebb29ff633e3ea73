//go:build goexperiment.simd && go1.27

package kernel

import "simd/archsimd"

// Every lane has a group, or a part of a unit.

// minimumScalesNEON is plainMinimums.
func minimumScalesNEON(lo, hi, scales, minimums *float32, n int, high float32) {
	steps := fill(high)
	for at := 0; at < n; at += 4 {
		low, end := loadFloats(lo, at).Min(floats{}), loadFloats(hi, at)
		end = end.Masked(end.NotEqual(low))
		storeFloats(end.Sub(low).Div(steps), scales, at)
		storeFloats(low.Neg(), minimums, at)
	}
}

// factorScalesNEON is plainFactors.
func factorScalesNEON(lo, hi, scales *float32, n int, low float32) {
	lowest := fill(low)
	for at := 0; at < n; at += 4 {
		end, other := loadFloats(lo, at), loadFloats(hi, at)
		larger := other.ToBits().BitsToInt32().Greater(end.Neg().ToBits().BitsToInt32())
		storeFloats(other.IfElse(larger, end).Div(lowest), scales, at)
	}
}

// multiplesNEON is takeMultiples.
func multiplesNEON(values *float32, n int, unit, least, most float32) {
	units, lowest, highest := fill(unit), fill(least), fill(most)
	for at := 0; at < n; at += 4 {
		factor := loadFloats(values, at).Div(units).Max(lowest).Min(highest).Round().Add(floats{}) // never -0
		storeFloats(units.Mul(factor), values, at)
	}
}

// unitPartsNEON is roundUnits.
func unitPartsNEON(stored, tried, parts *float32, needed, inverse, normal float32) {
	unit, factor, back := fill(needed), fill(inverse), fill(normal)
	steps, smallest, smallestNormal := fill(1/smallestFloat16), fill(smallestFloat16), fill(smallestNormalFloat16)
	for lane := 0; lane < trialLanes; lane += 4 {
		wanted := loadFloats(parts, lane).Mul(unit).Mul(factor)
		rounded := wanted.Mul(steps).Ceil().Mul(smallest)
		rounded = rounded.IfElse(wanted.Less(smallestNormal), roundScales(wanted, ScaleFloat16))
		storeFloats(rounded, stored, lane)
		storeFloats(rounded.Mul(back), tried, lane)
	}
}

// powerScalesNEON is plainPowers, but that all scales are undefined if one of them is special.
func powerScalesNEON(lo, hi, inverse, scale *float32, n int, high int32) (plain bool) {
	last, bias, none := archsimd.BroadcastInt32x4(high), archsimd.BroadcastInt32x4(127), ints{}
	least, most, twice := none.Sub(bias), bias.Sub(last), bias.Add(bias)
	holds := anything()
	for at := 0; at < n; at += 4 {
		end := loadFloats(lo, at).Neg().ToBits().BitsToInt32().Max(loadFloats(hi, at).ToBits().BitsToInt32())
		shift := loadFloats(inverse, at).ToBits().ShiftAllRight(23).BitsToInt32()
		exponent := end.ToBits().ShiftAllRight(23).BitsToInt32().Add(shift).Sub(twice).Sub(last)
		exponent = exponent.Max(least).Min(most).Sub(shift).Add(twice)
		holds = holds.And(bitsOf(exponent.Greater(none))).And(bitsOf(end.NotEqual(none)))
		storeFloats(exponent.ToBits().ShiftAllLeft(23).BitsToFloat32(), scale, at)
	}
	return everywhere(holds)
}

// groupCodersNEON is makeCoders.
func groupCodersNEON(scale, minimum, inverse, offset *float32, n int) {
	for at := 0; at < n; at += 4 {
		factor := fill(1).Div(loadFloats(scale, at)).Masked(loadFloats(scale, at).NotEqual(floats{}))
		storeFloats(factor, inverse, at)
		storeFloats(loadFloats(minimum, at).Mul(factor), offset, at)
	}
}
