//go:build goexperiment.simd && go1.27

package kernel

import (
	"simd/archsimd"
	"unsafe"
)

// packing is how codes of a bit width are packed and unpacked, 16 at a time.
type packing struct {
	bitWidth int
	enough   int       // codes, a multiple of 8, to have the packed bytes of a vector
	order    [16]uint8 // of packed bytes
	// Of unpacking: where the two bytes are that hold a code, and what is below it.
	bytes  [2][16]uint8
	shifts [8]int16
}

func newPacking(bitWidth int) *packing {
	p := &packing{bitWidth: bitWidth, enough: (16 + bitWidth - 1) / bitWidth * 8}
	for i := range p.order {
		if p.order[i] = 0xff; i < 2*bitWidth { // else 0
			p.order[i] = uint8(i/bitWidth*8 + i%bitWidth)
		}
	}
	for i := range p.shifts {
		for half := range p.bytes {
			first := uint8(half*bitWidth + i*bitWidth/8)
			p.bytes[half][2*i], p.bytes[half][2*i+1] = first, first+1
		}
		p.shifts[i] = -int16(i * bitWidth % 8)
	}
	return p
}

// pack joins neighbours, then pairs of them, then pairs of pairs: 8 codes are then the lowest
// bytes of 64 bits. Stores reach into the bytes of later codes, but not past the end.
func (p *packing) pack(packed, codes *byte, n int) {
	width := p.bitWidth
	low2 := archsimd.BroadcastUint16x8(0xff)
	low4 := archsimd.BroadcastUint32x4(0xffff)
	low8 := archsimd.BroadcastUint64x2(0xffffffff)
	shift2 := archsimd.BroadcastInt16x8(int16(width - 8))
	shift4 := archsimd.BroadcastInt32x4(int32(2*width - 16))
	shift8 := archsimd.BroadcastInt64x2(int64(4*width - 32))
	order := archsimd.LoadUint8x16Array(&p.order)
	at, to := 0, 0
	for last := n - p.enough; at <= last; at += 16 {
		v2 := loadOctets(codes, at).ReshapeToUint16s()
		v4 := v2.And(low2).Or(v2.AndNot(low2).Shift(shift2)).ReshapeToUint32s()
		v8 := v4.And(low4).Or(v4.AndNot(low4).Shift(shift4)).ReshapeToUint64s()
		v := v8.And(low8).Or(v8.AndNot(low8).Shift(shift8)).ReshapeToUint8s()
		storeOctets(v.LookupOrZero(order), packed, to)
		to += 2 * width
	}
	pack(unsafe.Slice(byteAt(packed, to), (n-at)/8*width), unsafe.Slice(byteAt(codes, at), n-at), width)
}

// unpack loads no bytes past the end.
func (p *packing) unpack(codes, packed *byte, n int) {
	width := p.bitWidth
	lower, upper := archsimd.LoadUint8x16Array(&p.bytes[0]), archsimd.LoadUint8x16Array(&p.bytes[1])
	shifts, mask := archsimd.LoadInt16x8Array(&p.shifts), archsimd.BroadcastUint8x16(1<<width-1)
	at, from := 0, 0
	for last := n - p.enough; at <= last; at += 16 {
		v := loadOctets(packed, from)
		low := v.LookupOrZero(lower).ReshapeToUint16s().Shift(shifts).ReshapeToUint8s()
		high := v.LookupOrZero(upper).ReshapeToUint16s().Shift(shifts).ReshapeToUint8s()
		storeOctets(low.ConcatEven(high).And(mask), codes, at)
		from += 2 * width
	}
	unpack(unsafe.Slice(byteAt(codes, at), n-at), unsafe.Slice(byteAt(packed, from), (n-at)/8*width), width)
}

// wideCodes is how many codes pack4NEON and pack2NEON take at a time.
const neonWideCodes = 64

// pack4NEON packs by pairs, which then have a byte of their own.
func pack4NEON(packed, codes *byte, n int) {
	shift := archsimd.BroadcastInt16x8(4 - 8)
	for at := 0; at < n; at += neonWideCodes {
		from, to := byteAt(codes, at), byteAt(packed, at/2)
		a, b := loadOctets(from, 0).ReshapeToUint16s(), loadOctets(from, 16).ReshapeToUint16s()
		c, d := loadOctets(from, 32).ReshapeToUint16s(), loadOctets(from, 48).ReshapeToUint16s()
		storeOctets(a.Or(a.Shift(shift)).ReshapeToUint8s().ConcatEven(b.Or(b.Shift(shift)).ReshapeToUint8s()), to, 0)
		storeOctets(c.Or(c.Shift(shift)).ReshapeToUint8s().ConcatEven(d.Or(d.Shift(shift)).ReshapeToUint8s()), to, 16)
	}
}

// pack2NEON does so twice.
func pack2NEON(packed, codes *byte, n int) {
	shift, shiftPairs := archsimd.BroadcastInt16x8(2-8), archsimd.BroadcastInt16x8(4-8)
	for at := 0; at < n; at += neonWideCodes {
		from := byteAt(codes, at)
		a, b := loadOctets(from, 0).ReshapeToUint16s(), loadOctets(from, 16).ReshapeToUint16s()
		c, d := loadOctets(from, 32).ReshapeToUint16s(), loadOctets(from, 48).ReshapeToUint16s()
		v := a.Or(a.Shift(shift)).ReshapeToUint8s().ConcatEven(b.Or(b.Shift(shift)).ReshapeToUint8s()).ReshapeToUint16s()
		w := c.Or(c.Shift(shift)).ReshapeToUint8s().ConcatEven(d.Or(d.Shift(shift)).ReshapeToUint8s()).ReshapeToUint16s()
		storeOctets(v.Or(v.Shift(shiftPairs)).ReshapeToUint8s().ConcatEven(w.Or(w.Shift(shiftPairs)).ReshapeToUint8s()), packed, at/4)
	}
}

// splitHalvesNEON unpacks the codes of a block to bytes, and joins those of its halves.
func splitHalvesNEON(out, packed *byte, blocks, stride int) {
	low := archsimd.BroadcastUint8x16(15)
	right, left := archsimd.BroadcastInt16x8(-4), archsimd.BroadcastInt16x8(4)
	for i := range blocks {
		v := loadOctets(packed, 16*i)
		even, odd := v.And(low), v.ReshapeToUint16s().Shift(right).ReshapeToUint8s().And(low)
		second := even.InterleaveHi(odd).ReshapeToUint16s().Shift(left).ReshapeToUint8s()
		storeOctets(even.InterleaveLo(odd).Or(second), out, stride*i)
	}
}
