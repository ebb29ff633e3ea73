package layout

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/pyarrowquant/pyarrowquant/quant"
	"github.com/pyarrowquant/pyarrowquant/quant/internal/kernel"
)

// encodedLayer is what quantizing random weights gives.
func encodedLayer(t *testing.T, e kernel.Encoding, rows, columns int) (Layer, []float32) {
	random := rand.New(rand.NewPCG(uint64(e), uint64(columns)))
	weights := make([]byte, 0, 4*rows*columns)
	for range rows * columns {
		weights = binary.LittleEndian.AppendUint32(weights, math.Float32bits(float32(random.NormFloat64())/50))
	}
	d := e.Describe()
	groups := kernel.Groups(columns, d.GroupSize)
	l := Layer{
		Rows: rows, Groups: groups, RowBytes: kernel.RowBytes(columns, d.BitWidth), BitWidth: d.BitWidth,
		Codes: make([]byte, rows*kernel.RowBytes(columns, d.BitWidth)), Scales: make([]float32, rows*groups), ZeroPoints: make([]float32, rows*groups),
	}
	if d.SuperSize > 0 {
		l.SuperScales = make([]float32, rows*d.SuperScales(columns))
	}
	if d.Minimums {
		l.SuperMinimums = make([]float32, len(l.SuperScales))
	}
	block := kernel.Block{
		Format: kernel.Format{BitWidth: d.BitWidth, Method: kernel.MeanSquares, Encoding: e}, Rows: rows, Columns: columns, GroupSize: d.GroupSize,
		Weights: weights, Packed: l.Codes, Scales: l.Scales, ZeroPoints: l.ZeroPoints, SuperScales: l.SuperScales, SuperMinimums: l.SuperMinimums,
	}
	if fault := kernel.Scalar.Quantize(&block); fault.Kind != kernel.NoFault {
		t.Fatal(fault)
	}
	decoded := make([]float32, rows*columns)
	codes := make([]uint8, columns)
	for i := range decoded {
		row, column := i/columns, i%columns
		if column == 0 {
			kernel.Unpack(codes, l.Codes[row*l.RowBytes:(row+1)*l.RowBytes], d.BitWidth)
		}
		level := float32(codes[column])
		if d.Levels != nil {
			level = d.Levels[codes[column]]
		}
		group := row*groups + column/d.GroupSize
		decoded[i] = float32(level-l.ZeroPoints[group]) * l.Scales[group]
	}
	return l, decoded
}

func half(b []byte) float32 {
	return float32(kernel.Widen(b[:2], kernel.Float16)[0])
}

var iq4 = [16]float32{-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113}

// sixes are the scale and minimum of a sub-block of Q4_K and Q5_K.
func sixes(b []byte, j int) (scale, minimum float32) {
	if j < 4 {
		return float32(b[j] & 63), float32(b[j+4] & 63)
	}
	return float32(b[j+4]&15 | b[j-4]>>6<<4), float32(b[j+4]>>4 | b[j]>>6<<4)
}

// decoders decode one weight of a block as ggml documents its types.
var decoders = map[kernel.Encoding]func(b []byte, i int) float32{
	kernel.Q2K: func(b []byte, i int) float32 {
		q := b[16+i/128*32+i%32] >> (i % 128 / 32 * 2) & 3
		return half(b[80:])*float32(b[i/16]&15)*float32(q) - half(b[82:])*float32(b[i/16]>>4)
	},
	kernel.Q3K: func(b []byte, i int) float32 {
		q := int(b[32+i/128*32+i%32] >> (i % 128 / 32 * 2) & 3)
		if b[i%32]>>(i/32)&1 == 0 {
			q -= 4
		}
		j := i / 16
		low := b[96+j%8] >> (j / 8 * 4) & 15
		scale := int(low|b[104+j%4]>>(j/4*2)&3<<4) - 32
		return half(b[108:]) * float32(scale) * float32(q)
	},
	kernel.Q4K: func(b []byte, i int) float32 {
		scale, minimum := sixes(b[4:], i/32)
		q := b[16+i/64*32+i%32] >> (i % 64 / 32 * 4) & 15
		return half(b)*scale*float32(q) - half(b[2:])*minimum
	},
	kernel.Q5K: func(b []byte, i int) float32 {
		scale, minimum := sixes(b[4:], i/32)
		q := b[48+i/64*32+i%32]>>(i%64/32*4)&15 | b[16+i%32]>>(i/32)&1<<4
		return half(b)*scale*float32(q) - half(b[2:])*minimum
	},
	kernel.Q6K: func(b []byte, i int) float32 {
		h, l := i/128, i%128
		low := b[64*h+l%64] >> (l / 64 * 4) & 15
		high := b[128+32*h+l%32] >> (l / 32 * 2) & 3
		return half(b[208:]) * float32(int8(b[192+i/16])) * float32(int(low|high<<4)-32)
	},
	kernel.IQ4NL: func(b []byte, i int) float32 { return half(b) * iq4[b[2+i%16]>>(i/16*4)&15] },
	kernel.IQ4XS: func(b []byte, i int) float32 {
		k := i / 32
		low := b[4+k/2] >> (k % 2 * 4) & 15
		high := binary.LittleEndian.Uint16(b[2:]) >> (2 * k) & 3
		scale := float32(int(low)|int(high)<<4) - 32
		return half(b) * scale * iq4[b[8+16*k+i%16]>>(i%32/16*4)&15]
	},
	kernel.MXFP4: func(b []byte, i int) float32 {
		value := []float32{0, 0.5, 1, 1.5, 2, 3, 4, 6}[b[1+i%16]>>(i/16*4)&7]
		if b[1+i%16]>>(i/16*4)&8 != 0 {
			value = -value
		}
		return float32(math.Ldexp(float64(value), int(b[0])-127))
	},
}

// TestEncodedBlocks decodes blocks as ggml documents them: the same weights as those of the
// table, but for the rounding of a minimum.
func TestEncodedBlocks(t *testing.T) {
	for e, form := range blockForms {
		for _, rows := range []int{1, 3} {
			const columns = 512
			l, want := encodedLayer(t, e, rows, columns)
			blocks := columns / form.columns
			out := make([]byte, rows*blocks*form.bytes)
			if err := EncodedBlocks(out, l, quant.Encoding(e), 2); err != nil {
				t.Fatal(err)
			}
			for i, w := range want {
				block := out[i/form.columns*form.bytes:][:form.bytes]
				got := decoders[e](block, i%form.columns)
				bound := float32(0)
				if l.SuperMinimums != nil {
					group := i / e.Describe().GroupSize
					bound = 0x1p-20 * max(abs(l.Scales[group])*float32(int(1)<<l.BitWidth), abs(l.ZeroPoints[group]*l.Scales[group]))
				}
				if abs(got-w) > bound {
					t.Fatalf("encoding %d, weight %d: block has %g, table %g", e, i, got, w)
				}
			}
		}
	}
}

func abs(x float32) float32 { return float32(math.Abs(float64(x))) }

// TestEncodedBlocksRefuses gives layers that no whole blocks hold.
func TestEncodedBlocksRefuses(t *testing.T) {
	l, _ := encodedLayer(t, kernel.Q4K, 2, 512)
	out := make([]byte, 2*2*144)
	for name, change := range map[string]func(l *Layer){
		"bits":     func(l *Layer) { l.BitWidth = 5 },
		"groups":   func(l *Layer) { l.Groups = 15; l.Scales, l.ZeroPoints = l.Scales[:30], l.ZeroPoints[:30] },
		"super":    func(l *Layer) { l.SuperScales = l.SuperScales[1:] },
		"minimums": func(l *Layer) { l.SuperMinimums = nil },
	} {
		changed := l
		change(&changed)
		if err := EncodedBlocks(out, changed, quant.Encoding(kernel.Q4K), 1); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if err := EncodedBlocks(out, l, quant.Encoding(kernel.NF4), 1); err == nil || fmt.Sprint(err) == "" {
		t.Error("nf4: no error")
	}
	if err := EncodedBlocks(out[1:], l, quant.Encoding(kernel.Q4K), 1); err == nil {
		t.Error("size: no error")
	}
}
