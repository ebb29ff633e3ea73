//go:build goexperiment.simd && go1.27

package kernel

import (
	"simd/archsimd"
	"unsafe"
)

// hqqSumsNEON are the hqqSums of n rows of a tile: pull at rest, and restRest.
func hqqSumsNEON(lanes, tile *float32, n int, maxCode float32) {
	l, most := (*searchLanes)(unsafe.Pointer(lanes)), fill(maxCode)
	one, tenth, exponent, first := fill(1), fill(0.1), fill(norm-1), fill(powerFirst)
	sign := archsimd.BroadcastUint32x4(signBit)
	for lane := 0; lane < searchGroups; lane += 4 {
		inverse, zeroPoint, threshold := loadFloats(&l.inverse[0], lane), loadFloats(&l.zeroPoint[0], lane), loadFloats(&l.threshold[0], lane)
		var pull, restRest floats
		for at, end := lane, lane+n*searchGroups; at < end; at += searchGroups {
			v := loadFloats(tile, at).Mul(inverse).Add(zeroPoint)
			r := v.Sub(clampRound(v, most))
			x := r.Abs()
			// power of the reference
			y := x.ToBits().BitsToInt32().ConvertToFloat32().Mul(exponent).Add(first).Round().ConvertToInt32().ToBits().BitsToFloat32()
			cube := x.Mul(x).Mul(x)
			for range powerRefined {
				y2 := y.Mul(y)
				y4 := y2.Mul(y2)
				y10 := y4.Mul(y4).Mul(y2)
				y = y.Add(y.Mul(one.Sub(cube.Mul(y10))).Mul(tenth))
			}
			shrunk := positive(x.Sub(threshold.Mul(y)))
			pull = pull.Add(r.Sub(shrunk.ToBits().Or(r.ToBits().And(sign)).BitsToFloat32()))
			restRest = restRest.Add(r.Mul(r))
		}
		storeFloats(pull, &l.rest[0], lane)
		storeFloats(restRest, &l.restRest[0], lane)
	}
}
