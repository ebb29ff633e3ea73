//go:build goexperiment.simd && go1.27

package kernel

import (
	"simd/archsimd"
	"unsafe"
)

// withinBounds tells where a magnitude is least .. most, and no NaN.
func withinBounds(v, least, most floats) archsimd.Mask32x4 {
	v = v.Abs()
	return v.GreaterEqual(least).And(v.LessEqual(most))
}

// roundScales is roundScale.
func roundScales(s floats, dtype ScaleDtype) floats {
	switch dtype {
	case ScaleFloat16:
		// Adding magic leaves no bits for what is less than the last one of float16.
		power := s.ToBits().And(archsimd.BroadcastUint32x4(infinityBits)).BitsToFloat32().Max(fill(0x1p-14))
		magic := power.Mul(fill(0x1.8p13))
		rounded := s.Add(magic).Sub(magic)
		const beyond = 65520 // rounds to 2^16
		return rounded.IfElse(s.Abs().Less(fill(beyond)), fill(infinity))
	case ScaleBFloat16:
		bits := s.ToBits()
		last := bits.ShiftAllRight(16).And(archsimd.BroadcastUint32x4(1))
		return bits.Add(last).Add(archsimd.BroadcastUint32x4(0x7fff)).And(archsimd.BroadcastUint32x4(0xffff0000)).BitsToFloat32()
	default:
		return s
	}
}

// fitNEON chooses the parameters of 4 groups at a time, as fit of the reference does for groups
// to which the plain formulas apply.
func fitNEON(lo, hi *float32, n int, maxCode, half float32, scale, inverse, zeroPoint *float32, zero ZeroPoint, dtype ScaleDtype) (plain bool) {
	most, minPlain, maxPlain := fill(maxCode), fill(minPlainScale), fill(maxPlainScale)
	lanes := archsimd.LoadInt32x4Array(&[4]int32{0, 1, 2, 3})
	for at := 0; at < n; at += 4 {
		low, high := loadFloats(lo, at), loadFloats(hi, at)
		var s, z floats
		wanted := archsimd.Mask32x4{}.Not()
		switch zero {
		case SymmetricZero:
			s = high.IfElse(high.GreaterEqual(low.Neg()), low).Neg().Div(fill(half))
		case FloatZero:
			ends := low.Abs().Max(high.Abs())
			wanted = ends.Less(fill(maxPlainOffset))
			s = high.Sub(low).Div(most)
		default:
			low, high = low.Min(floats{}), high.Max(floats{})
			s = high.Sub(low).Div(most)
		}
		wanted = wanted.And(withinBounds(s, minPlain, maxPlain))
		s = roundScales(s, dtype)
		wanted = wanted.And(withinBounds(s, minPlain, maxPlain)) // neither 0 nor Inf
		inverses := fill(1).Div(s)
		switch zero {
		case SymmetricZero:
			z = fill(half)
		case FloatZero:
			z = low.Neg().Mul(inverses).Add(floats{}) // never -0
		default:
			z = clampRound(low.Neg().Mul(inverses), most)
		}
		storeFloats(s, scale, at)
		storeFloats(inverses, inverse, at)
		storeFloats(z, zeroPoint, at)
		// Lanes past the last group do not count.
		failed := wanted.Not().And(lanes.Less(archsimd.BroadcastInt32x4(int32(n - at))))
		bits := failed.ToInt32x4().ToBits().ReshapeToUint64s()
		if bits.GetElem(0)|bits.GetElem(1) != 0 {
			return false
		}
	}
	return true
}

func fitOf(zero ZeroPoint) (fits [3]func(*float32, *float32, int, float32, float32, *float32, *float32, *float32) bool) {
	for dtype := range fits {
		fits[dtype] = func(lo, hi *float32, n int, maxCode, half float32, scale, inverse, zeroPoint *float32) bool {
			return fitNEON(lo, hi, n, maxCode, half, scale, inverse, zeroPoint, zero, ScaleDtype(dtype))
		}
	}
	return fits
}

// refineNEON does for 4 lanes of a tile at a time what refine of the reference does, and keeps the best of
// both of its results.
func refineNEON(lanes *float32, maxCode float32, zero ZeroPoint, dtype ScaleDtype) {
	one := fill(1)
	for lane := 0; lane < searchGroups; lane += 4 {
		l := (*searchLanes)(unsafe.Pointer(lanes))
		code, codeCode, rest := loadFloats(&l.code[0], lane), loadFloats(&l.codeCode[0], lane), loadFloats(&l.rest[0], lane)
		restCode, restRest, weight := loadFloats(&l.restCode[0], lane), loadFloats(&l.restRest[0], lane), loadFloats(&l.weight[0], lane)
		scale, zeroPoint := loadFloats(&l.scale[0], lane), loadFloats(&l.zeroPoint[0], lane)
		z := zeroPoint
		var slope, promise floats
		if zero != SymmetricZero {
			d := weight.Mul(codeCode).Sub(code.Mul(code))
			slope = weight.Mul(restCode).Sub(code.Mul(rest)).Div(d)
			slope = slope.Masked(d.Greater(floats{}))
			offset := rest.Sub(slope.Mul(code)).Div(weight)
			promise = restRest.Sub(slope.Mul(restCode)).Sub(offset.Mul(rest))
			z = zeroPoint.Sub(offset).Div(one.Add(slope))
		}
		if zero != FloatZero {
			if zero == IntegerZero {
				z = positive(z).Min(fill(maxCode)).Round()
			}
			moved := z.Sub(zeroPoint)
			step := code.Sub(weight.Mul(z))
			stepStep := codeCode.Sub(z.Mul(code.Add(step)))
			restStep := restCode.Sub(z.Mul(rest)).Add(moved.Mul(step))
			all := restRest.Add(moved.Mul(rest.Add(rest.Add(weight.Mul(moved)))))
			slope = restStep.Div(stepStep).Masked(stepStep.Greater(floats{}))
			promise = all.Sub(slope.Mul(restStep))
		}
		factor := one.Add(slope)
		s := roundScales(scale.Mul(factor), dtype)
		inverse := one.Div(s)
		if zero == FloatZero {
			mean := rest.Add(code).Div(weight).Sub(zeroPoint)
			z = code.Div(weight).Sub(scale.Mul(inverse).Mul(mean)).Add(floats{}) // never -0
		}
		square := scale.Mul(loadFloats(&l.base[0], lane))
		square = square.Mul(square)
		wanted := factor.Greater(floats{}).And(withinBounds(s, fill(minPlainScale), fill(maxPlainScale))).And(z.Abs().LessEqual(fill(maxOffset)))
		promise = promise.Mul(square).IfElse(wanted, fill(infinity))

		better := promise.Less(loadFloats(&l.nextPromise[0], lane))
		keep(better, promise, &l.nextPromise[lane])
		keep(better, s, &l.nextScale[lane])
		keep(better, inverse, &l.nextInverse[lane])
		keep(better, z, &l.nextZeroPoint[lane])
		square = square.Mul(restRest)
		better = square.Less(loadFloats(&l.leastError[0], lane))
		keep(better, square, &l.leastError[lane])
		keep(better, scale, &l.bestScale[lane])
		keep(better, loadFloats(&l.inverse[0], lane), &l.bestInverse[lane])
		keep(better, zeroPoint, &l.bestZeroPoint[lane])
	}
}

// keep stores the lanes of a mask.
func keep(mask archsimd.Mask32x4, v floats, p *float32) {
	storeFloats(v.IfElse(mask, loadFloats(p, 0)), p, 0)
}

func refineOf(zero ZeroPoint) (refines [3]func(*float32, int, float32)) {
	for dtype := range refines {
		refines[dtype] = func(lanes *float32, n int, maxCode float32) {
			for lane := 0; lane < n; lane += searchGroups {
				refineNEON(floatAt(lanes, lane), maxCode, zero, ScaleDtype(dtype))
			}
		}
	}
	return refines
}
