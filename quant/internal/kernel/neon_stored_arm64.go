//go:build goexperiment.simd && go1.27

package kernel

import (
	"simd/archsimd"
	"unsafe"
)

// Comparisons are of what has to hold, which it does not of NaN.

// everywhere tells whether all that was collected holds.
func everywhere(holds words) bool {
	return holds.GetElem(0)&holds.GetElem(1)&holds.GetElem(2)&holds.GetElem(3) == ^uint32(0)
}

func anything() words { return archsimd.BroadcastUint32x4(^uint32(0)) }

func bitsOf(mask archsimd.Mask32x4) words { return mask.ToInt32x4().ToBits() }

func areE4M3NEON(scales *byte, n int, layerScale float32) bool {
	from, layer := (*float32)(unsafe.Pointer(scales)), fill(layerScale)
	exponents := archsimd.BroadcastUint32x4(infinityBits)
	high, smallestNormal, magic := fill(e4m3.largest), fill(e4m3.smallestNormal), fill(e4m3.magic)
	holds := anything()
	for at := 0; at < n; at += 4 {
		factor := loadFloats(from, at).Div(layer)
		holds = holds.And(bitsOf(floatLevel(factor, exponents, floats{}, high, smallestNormal, magic).Equal(factor)))
	}
	return everywhere(holds)
}

func areFactorsNEON(scales, superScales *byte, superGroups, perSuper int, least, most float32) bool {
	from, supers := (*float32)(unsafe.Pointer(scales)), (*float32)(unsafe.Pointer(superScales))
	low, high := fill(least), fill(most)
	holds, at := anything(), 0
	for k := range superGroups {
		super := repeat(supers, k)
		holds = holds.And(bitsOf(super.Sub(super).Equal(floats{})))
		for end := at + perSuper; at < end; at += 4 {
			factor := loadFloats(from, at).Div(super)
			holds = holds.And(bitsOf(factor.Max(low).Min(high).Round().Equal(factor)))
		}
	}
	return everywhere(holds)
}

func areMinimumsNEON(scales, zeroPoints, superMinimums *byte, superGroups, perSuper int, most float32) bool {
	from, supers := (*float32)(unsafe.Pointer(scales)), (*float32)(unsafe.Pointer(superMinimums))
	points := (*float32)(unsafe.Pointer(zeroPoints))
	high, rounding := fill(most), fill(minimumRounding)
	holds, at := anything(), 0
	for k := range superGroups {
		super := repeat(supers, k)
		holds = holds.And(bitsOf(super.Sub(super).Equal(floats{})))
		for end := at + perSuper; at < end; at += 4 {
			factor := loadFloats(points, at).Mul(loadFloats(from, at)).Div(super)
			rest := factor.Sub(factor.Max(floats{}).Min(high).Round())
			holds = holds.And(bitsOf(factor.GreaterEqual(floats{}))).And(bitsOf(rest.Abs().LessEqual(rounding)))
		}
	}
	return everywhere(holds)
}

// levelScalesNEON is plainOfLayer, but that all scales are undefined if one of them is special.
func levelScalesNEON(lo, hi, normal, inverse, scale *float32, n int, high, layerScale float32) (plain bool) {
	most, layer, exponents := fill(high), fill(layerScale), archsimd.BroadcastUint32x4(infinityBits)
	largest, smallestNormal, magic := fill(e4m3.largest), fill(e4m3.smallestNormal), fill(e4m3.magic)
	holds := anything()
	for at := 0; at < n; at += 4 {
		end := floats{}.Sub(loadFloats(lo, at)).Max(loadFloats(hi, at))
		factor := end.Div(most).Mul(loadFloats(inverse, at)).Div(layer)
		holds = holds.And(bitsOf(factor.LessEqual(largest)))
		rounded := floatLevel(factor, exponents, floats{}, largest, smallestNormal, magic).Mul(layer)
		rest := rounded.Mul(most)
		holds = holds.And(bitsOf(rounded.Greater(floats{}))).And(bitsOf(rest.Sub(rest).Equal(floats{})))
		storeFloats(rounded.Mul(loadFloats(normal, at)), scale, at)
	}
	return everywhere(holds)
}
