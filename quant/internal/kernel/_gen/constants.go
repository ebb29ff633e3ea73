package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
)

// What follows is the read-only data of more than one function. It all stands in this
// file, as the order of variables is that of the output.

type orderKey struct {
	parts int
	split bool
}

// orders has the places from which groups of 4 bytes come. If split, two
// neighbours are of two registers, and stay together.
var orders = map[orderKey]Mem{
	{2, false}: makeOrder(2, 1), {4, false}: makeOrder(4, 1),
	{2, true}: makeOrder(2, 2), {4, true}: makeOrder(4, 2),
}

func makeOrder(parts, together int) Mem {
	m := GLOBL(fmt.Sprintf("order%dx%d", parts, together), RODATA|NOPTR)
	at := 0
	for first := 0; first < 4; first += together {
		for part := range parts {
			for k := range together {
				DATA(at, U32(uint32(4*part+first+k)))
				at += 4
			}
		}
	}
	return m
}

// mixed has bytes 0 .. 3 and 4 .. 7 in turns, then 8 .. 11 and 12 .. 15.
var mixed = func() Mem {
	m := GLOBL("mixed", RODATA|NOPTR)
	DATA(0, U64(0x0703060205010400))
	DATA(8, U64(0x0f0b0e0a0d090c08))
	return m
}()

// Bounds and masks of fit, as bits.
var (
	one            = constant("one", 0x3f800000)
	signBit        = constant("signBit", 0x80000000)
	magnitude32    = constant("magnitude32", 0x7fffffff)
	minPlain       = constant("minPlain", 0x03800000)       // 2^-120
	maxPlain       = constant("maxPlain", 0x7b800000)       // 2^120
	maxOffset      = constant("maxOffset", 0x7effffff)      // the largest below 2^127
	minFloat16     = constant("minFloat16", 0x33800000)     // 2^-24
	normalFloat16  = constant("normalFloat16", 0x38800000)  // 2^-14
	perSubnormal16 = constant("perSubnormal16", 0x4b800000) // 2^24
	maxFloat16     = constant("maxFloat16", 0x477fe000)     // 65504
	bfloatBelow    = constant("bfloatBelow", 0x00007fff)
	exponentBias   = constant("exponentBias", 127)
	lowestBit      = constant("lowestBit", 0x00000001)
	bfloatKept     = constant("bfloatKept", 0xffff0000)
)

// magnitudeMask clears the sign of a float64.
var magnitudeMask = func() Mem {
	m := GLOBL("magnitudeMask", RODATA|NOPTR)
	DATA(0, U64(0x7fffffffffffffff))
	return m
}()

// Masks of ranges, the last two for pairs of elements.
var (
	allOnes      = constant("allOnes", 0xffffffff)
	signs16      = constant("signs16", 0x80008000)
	magnitudes16 = constant("magnitudes16", 0x7fff7fff)
)

// Constants of power in hqq.go, as bits.
var (
	exponent   = constant("exponent", 0xbe99999a)
	powerFirst = constant("powerFirst", 0x4ea508b2)
	tenth      = constant("tenth", 0x3dcccccd)
)

// Bounds of refine, as bits.
var (
	infinity         = constant("infinity", 0x7f800000)
	largestZeroPoint = constant("largestZeroPoint", 0x46800000) // 2^14
)

// Constants of encodings, as bits.
var (
	none      = constant("none", 0)
	leastGain = constant("leastGain", 0x3a800000) // 2^-10
	// Exponents of float32: the least, what those of reciprocals add up to, and 2^-127.
	smallestExponent = constant("smallestExponent", 1)
	twoBiases        = constant("twoBiases", 254)
	halfSmallest     = constant("halfSmallest", 1<<22)
	// Of E4M3: what the exponents of float32 are more by, and the largest number.
	e4m3ToFloat32 = constant("e4m3ToFloat32", 0x7b800000) // 2^120
	e4m3Largest   = constant("e4m3Largest", 0x43e00000)   // 448
	// The smallest number of E4M3 that is normal, and its floatFormat.magic.
	e4m3SmallestNormal = constant("e4m3SmallestNormal", 0x3c800000) // 2^-6
	e4m3Magic          = constant("e4m3Magic", 0x49c00000)          // 1.5 * 2^20
	// How far minimums of results may be from whole numbers of super-minimums.
	minimumRounding = constant("minimumRounding", 0x37800000) // 2^-16
)

// constant makes a read-only float32 or pattern of 32 bits.
func constant(name string, bits uint32) Mem {
	m := GLOBL(name, RODATA|NOPTR)
	DATA(0, U32(bits))
	return m
}

// table makes read-only bytes.
func table(name string, content [16]byte) Mem {
	m := GLOBL(name, RODATA|NOPTR)
	for i, b := range content {
		DATA(i, U8(b))
	}
	return m
}
