//go:build goexperiment.simd && go1.27

package kernel

import (
	"simd/archsimd"
	"unsafe"
)

// The NEON kernel is plain Go, in which each operation on vectors is one instruction. Where it
// loads and stores is told by a pointer and by elements from there on: there are no bounds to
// check, and no pointers behind the end.

type (
	floats  = archsimd.Float32x4
	doubles = archsimd.Float64x2
	words   = archsimd.Uint32x4
	ints    = archsimd.Int32x4
	shorts  = archsimd.Uint16x8
	octets  = archsimd.Uint8x16
)

func floatAt(p *float32, i int) *float32 { return (*float32)(unsafe.Add(unsafe.Pointer(p), 4*i)) }

func byteAt(p *byte, i int) *byte { return (*byte)(unsafe.Add(unsafe.Pointer(p), i)) }

func loadFloats(p *float32, i int) floats {
	return archsimd.LoadFloat32x4Array((*[4]float32)(unsafe.Pointer(floatAt(p, i))))
}

func storeFloats(v floats, p *float32, i int) {
	v.StoreArray((*[4]float32)(unsafe.Pointer(floatAt(p, i))))
}

func loadOctets(p *byte, i int) octets {
	return archsimd.LoadUint8x16Array((*[16]uint8)(unsafe.Pointer(byteAt(p, i))))
}

func storeOctets(v octets, p *byte, i int) {
	v.StoreArray((*[16]uint8)(unsafe.Pointer(byteAt(p, i))))
}

// loadLower and storeLower are of 8 bytes, the lower half of a vector.
func loadLower(p *byte, i int) octets {
	return archsimd.Uint64x2{}.SetElem(0, *(*uint64)(unsafe.Pointer(byteAt(p, i)))).ReshapeToUint8s()
}

func storeLower(v octets, p *byte, i int) {
	*(*uint64)(unsafe.Pointer(byteAt(p, i))) = v.ReshapeToUint64s().GetElem(0)
}

// fill repeats a number, repeat one in memory.
func fill(x float32) floats { return archsimd.BroadcastFloat32x4(x) }

func repeat(p *float32, i int) floats { return fill(*floatAt(p, i)) }

// positive is v where v > 0, else 0, as for NaN.
func positive(v floats) floats { return v.Masked(v.Greater(floats{})) }

// clampRound is round of the reference, but for NaN.
func clampRound(v, most floats) floats { return v.Max(floats{}).Min(most).Round() }

// pair is 8 lanes.
type pair struct{ low, high floats }

func loadPair(p *float32, i int) pair {
	p = floatAt(p, i)
	return pair{loadFloats(p, 0), loadFloats(p, 4)}
}

func (v pair) store(p *float32, i int) {
	p = floatAt(p, i)
	storeFloats(v.low, p, 0)
	storeFloats(v.high, p, 4)
}

func pairOf(low, high floats) pair { return pair{low, high} }

// both is the same vector twice.
func both(v floats) pair { return pair{v, v} }

func (v pair) add(w pair) pair { return pair{v.low.Add(w.low), v.high.Add(w.high)} }
func (v pair) sub(w pair) pair { return pair{v.low.Sub(w.low), v.high.Sub(w.high)} }
func (v pair) mul(w pair) pair { return pair{v.low.Mul(w.low), v.high.Mul(w.high)} }
func (v pair) div(w pair) pair { return pair{v.low.Div(w.low), v.high.Div(w.high)} }
func (v pair) max(w pair) pair { return pair{v.low.Max(w.low), v.high.Max(w.high)} }
func (v pair) min(w pair) pair { return pair{v.low.Min(w.low), v.high.Min(w.high)} }

// mulAdd is v*w + x, rounded once.
func (v pair) mulAdd(w, x pair) pair {
	return pair{v.low.MulAdd(w.low, x.low), v.high.MulAdd(w.high, x.high)}
}
func (v pair) round() pair { return pair{v.low.Round(), v.high.Round()} }

// shorten makes whole numbers integers of 16 bits; what is negative becomes 0.
func (v pair) shorten() shorts {
	return v.low.ConvertToUint32().ReshapeToUint16s().ConcatEven(v.high.ConvertToUint32().ReshapeToUint16s())
}

// widening is what makes float32 of float16: bits are shifted to their places, but for the
// exponent, which is that of float32 after a multiplication. It is made before loops, since the
// compiler leaves in them what does not change.
type widening struct {
	shift ints
	kept  words
	unit  floats
}

func newWidening() widening {
	return widening{archsimd.BroadcastInt32x4(-3), archsimd.BroadcastUint32x4(0x8fffe000), fill(0x1p112)}
}

func (c widening) float16(v words) floats {
	return v.BitsToInt32().Shift(c.shift).ToBits().And(c.kept).BitsToFloat32().Mul(c.unit)
}

// loadElements widens 8 finite weights. Functions whose signatures have vectors may be longer
// than others until the compiler no longer inlines them; pairs are not seen as such.
func loadElements(p *byte, i int, t ElementType, c widening) (v, w floats) {
	if t == Float32 {
		from := floatAt((*float32)(unsafe.Pointer(p)), i)
		return loadFloats(from, 0), loadFloats(from, 4)
	}
	short := loadOctets(p, 2*i).ReshapeToUint16s()
	low, high := shorts{}.InterleaveLo(short).ReshapeToUint32s(), shorts{}.InterleaveHi(short).ReshapeToUint32s()
	if t == BFloat16 {
		return low.BitsToFloat32(), high.BitsToFloat32()
	}
	return c.float16(low), c.float16(high)
}

// loadFour widens 4 finite weights.
func loadFour(p *byte, i int, t ElementType, c widening) floats {
	if t == Float32 {
		return loadFloats((*float32)(unsafe.Pointer(p)), i)
	}
	v := shorts{}.InterleaveLo(loadLower(p, 2*i).ReshapeToUint16s()).ReshapeToUint32s()
	if t == BFloat16 {
		return v.BitsToFloat32()
	}
	return c.float16(v)
}

// widenOctets makes float32 of 8 bytes, the lower half of a vector.
func widenOctets(v octets) pair {
	s := v.InterleaveLo(octets{}).ReshapeToUint16s()
	return pair{
		s.InterleaveLo(shorts{}).ReshapeToUint32s().ConvertToFloat32(),
		s.InterleaveHi(shorts{}).ReshapeToUint32s().ConvertToFloat32(),
	}
}

// loadFourCodes makes float32 of 4 bytes.
func loadFourCodes(p *byte, i int) floats {
	v := words{}.SetElem(0, *(*uint32)(unsafe.Pointer(byteAt(p, i)))).ReshapeToUint8s()
	return v.InterleaveLo(octets{}).ReshapeToUint16s().InterleaveLo(shorts{}).ReshapeToUint32s().ConvertToFloat32()
}
