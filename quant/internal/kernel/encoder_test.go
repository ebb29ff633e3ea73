package kernel

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// encodedBlock is a block with memory for all that an encoding gives.
func encodedBlock(e Encoding, m Method, t ElementType, rows, columns int, weights []byte, importance []float32) Block {
	d := e.Describe()
	b := Block{
		Format: Format{BitWidth: d.BitWidth, Method: m, Encoding: e}, Type: t,
		Rows: rows, Columns: columns, GroupSize: min(columns, d.GroupSize), Weights: weights, Importance: importance,
		LayerScale: layerScaleOf(weights, t), Sums: new(Sums),
	}
	if d.GroupSize == 0 {
		b.GroupSize = columns
		if columns > 16 {
			b.GroupSize = 16
		}
	}
	b.Packed = make([]byte, rows*RowBytes(columns, d.BitWidth))
	b.Scales = make([]float32, rows*Groups(columns, b.GroupSize))
	b.SuperScales = make([]float32, rows*d.SuperScales(columns))
	if d.Minimums {
		b.SuperMinimums = make([]float32, len(b.SuperScales))
	}
	if d.Minimums || d.ZeroPoint != 0 {
		b.ZeroPoints = make([]float32, len(b.Scales))
	}
	return b
}

// layerScaleOf is a super-scale of a layer with which its weights have scales.
func layerScaleOf(weights []byte, t ElementType) float32 {
	values := make([]float32, len(weights)/t.Size())
	load(values, weights, t)
	largest := float32(0)
	for _, w := range values {
		if isFinite(w) {
			largest = max(largest, abs(w))
		}
	}
	scale := float32(0x1p-126)
	for scale < largest/NVFP4.Describe().LargestScaled() {
		scale *= 2
	}
	return scale
}

// again is the same block with memory of its own.
func again(b Block) Block {
	b.Packed, b.Scales, b.ZeroPoints = slices.Clone(b.Packed), slices.Clone(b.Scales), slices.Clone(b.ZeroPoints)
	b.SuperScales, b.SuperMinimums, b.Sums = slices.Clone(b.SuperScales), slices.Clone(b.SuperMinimums), new(Sums)
	return b
}

func decodedBlock(k Kernel, b *Block) []float32 {
	raw := func(values []float32) []byte {
		out := make([]byte, 4*len(values))
		store(out, values, Float32)
		return out
	}
	c := CodedBlock{
		BitWidth: b.BitWidth, Rows: b.Rows, Columns: b.Columns, GroupSize: b.GroupSize, Packed: b.Packed, Scales: raw(b.Scales),
		Type: Float32, Weights: make([]byte, 4*b.Rows*b.Columns),
	}
	if d := b.Encoding.Describe(); d != nil {
		c.Levels = d.Levels
	}
	if b.ZeroPoints != nil {
		c.ZeroPoints = raw(b.ZeroPoints)
	}
	k.Dequantize(&c)
	weights := make([]float32, b.Rows*b.Columns)
	load(weights, c.Weights, Float32)
	return weights
}

// checkEncoded has all kernels code a block alike, and decode it to finite weights from
// numbers that the encoding stores.
func checkEncoded(t *testing.T, b Block) (Fault, Sums) {
	t.Helper()
	fault := quantizeScalar(&b)
	for _, k := range All()[1:] {
		got := again(b)
		if f := k.Quantize(&got); math.Float32bits(f.Value) != math.Float32bits(fault.Value) || f.Kind != fault.Kind || f.Index != fault.Index {
			t.Fatalf("%s: fault %+v, want %+v", k.Name, f, fault)
		}
		if fault.Kind != NoFault {
			continue
		}
		same := bytes.Equal(got.Packed, b.Packed) && *got.Sums == *b.Sums && got.Underflows == b.Underflows
		for _, pair := range [][2][]float32{{got.Scales, b.Scales}, {got.ZeroPoints, b.ZeroPoints}, {got.SuperScales, b.SuperScales}, {got.SuperMinimums, b.SuperMinimums}} {
			same = same && slices.EqualFunc(pair[0], pair[1], func(x, y float32) bool { return math.Float32bits(x) == math.Float32bits(y) })
		}
		if !same {
			t.Fatalf("%s differs from the reference: encoding %d method %d %dx%d\n%v\n%v\n%v\n%v", k.Name, b.Encoding, b.Method, b.Rows, b.Columns, got.Scales, b.Scales, got.ZeroPoints, b.ZeroPoints)
		}
	}
	if fault.Kind != NoFault {
		return fault, *b.Sums
	}
	d := b.Encoding.Describe()
	groups := Groups(b.Columns, b.GroupSize)
	for i, scale := range b.Scales {
		super, superMinimum := b.LayerScale, float32(0)
		if d.SuperSize > 0 {
			at := i/groups*d.SuperScales(b.Columns) + i%groups*b.GroupSize/d.SuperSize
			super = b.SuperScales[at]
			if d.Minimums {
				superMinimum = b.SuperMinimums[at]
			}
		}
		if !d.IsScale(scale, super) || d.Minimums && !d.IsMinimum(scale, b.ZeroPoints[i], superMinimum) {
			t.Fatalf("encoding %d: scale %g and zero-point of group %d are not what super-scale %g and super-minimum %g give", b.Encoding, scale, i, super, superMinimum)
		}
	}
	decoded := decodedBlock(Scalar, &b)
	for i, w := range decoded {
		if !isFinite(w) {
			t.Fatalf("encoding %d: weight %d decodes to %g", b.Encoding, i, w)
		}
	}
	for _, k := range All()[1:] {
		if !slices.Equal(decodedBlock(k, &b), decoded) {
			t.Fatalf("%s decodes differently", k.Name)
		}
	}
	return fault, *b.Sums
}

var encodedShapes = [][2]int{{1, 1}, {1, 7}, {3, 8}, {2, 17}, {2, 33}, {5, 64}, {3, 250}, {2, 256}, {1, 300}, {2, 512}, {1, 1111}, {1, 2500}}

// TestEncodedKernelsAgree crosses all that a block of an encoding can be.
func TestEncodedKernelsAgree(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	for e := Q2K; e <= FP8; e++ {
		for _, shape := range encodedShapes {
			for _, element := range []ElementType{Float32, Float16, BFloat16, Float64} {
				weights := randomWeights(random, shape[0]*shape[1], element, 0)
				for _, importance := range [][]float32{nil, randomImportance(random, shape[1])} {
					if !isTried(random, 20) {
						continue
					}
					_, plain := checkEncoded(t, encodedBlock(e, RoundToNearest, element, shape[0], shape[1], weights, importance))
					fault, searched := checkEncoded(t, encodedBlock(e, MeanSquares, element, shape[0], shape[1], weights, importance))
					if importance == nil && fault.Kind == NoFault && searched.Error > plain.Error {
						t.Errorf("encoding %d, shape %v: the search leaves %g, round-to-nearest %g", e, shape, searched.Error, plain.Error)
					}
				}
			}
		}
	}
}

// TestEncodedKernelsAgreeOnSmallGroups has groups beside larger ones, down to scales whose inverse
// float32 does not have.
func TestEncodedKernelsAgreeOnSmallGroups(t *testing.T) {
	random := rand.New(rand.NewPCG(9, 10))
	const columns = 3*superSize - 7
	weights := make([]float32, 2*columns)
	for e := Q2K; e <= FP8; e++ {
		for range 30 {
			var size float64
			for i := range weights {
				if i%16 == 0 {
					size = math.Ldexp(1, -random.IntN(150))
				}
				weights[i] = float32(size * float64(random.IntN(7)-3) / 2)
			}
			checkEncoded(t, encodedBlock(e, MeanSquares, Float32, 2, columns, rawFloat32(weights), randomImportance(random, columns)))
		}
	}
}

// TestWeightsBelowSuperScales has super-groups so small that only 0 is near, beside zeros.
func TestWeightsBelowSuperScales(t *testing.T) {
	random := rand.New(rand.NewPCG(11, 12))
	const columns = superSize - 19
	for e := Q2K; e <= Q6K; e++ {
		for exponent := -148; exponent <= -26; exponent += 2 {
			weights := make([]float32, columns)
			for i := 64; i < columns-16; i++ {
				weights[i] = float32(math.Ldexp(random.Float64()*2-.5, exponent))
			}
			b := encodedBlock(e, MeanSquares, Float32, 1, columns, rawFloat32(weights), nil)
			checkEncoded(t, b)
			quantizeScalar(&b)
			if b.SuperScales[0] != 0 || b.Underflows == 0 {
				t.Errorf("encoding %d, weights of 2^%d: super-scale %g, %d groups underflow", e, exponent, b.SuperScales[0], b.Underflows)
			}
		}
	}
}

// FuzzEncoded feeds arbitrary bit patterns as weights.
func FuzzEncoded(f *testing.F) {
	patterns := func(values ...float32) []byte {
		var out []byte
		for _, v := range values {
			out = binary.LittleEndian.AppendUint32(out, math.Float32bits(v))
		}
		return out
	}
	for choice := range uint8(2 * FP8) {
		for _, seed := range [][]byte{
			patterns(math.MaxFloat32, -math.MaxFloat32, 1), patterns(1e-45, -1e-45), patterns(-5, -5, -5), patterns(65504, 3e38, 1e-30),
			patterns(float32(math.NaN())), patterns(1e30, -1e30), patterns(1e-30, 2e-30, -1e-30), patterns(-1, -2, -3, 1e-7), make([]byte, 4*300),
		} {
			f.Add(seed, choice)
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte, choice uint8) {
		n := len(raw) / 4
		if n == 0 || n > 5000 {
			return
		}
		e := Q2K + Encoding(choice/2)%FP8
		b := encodedBlock(e, Method(choice%2), Float32, 1, n, raw[:4*n], nil)
		if choice >= 128 {
			b.Importance = importanceOf(raw[:n])
		}
		fault, _ := checkEncoded(t, b)
		weights := make([]float32, n)
		load(weights, raw, Float32)
		for i, w := range weights {
			if !isFinite(w) {
				if fault.Kind != NonFinite || fault.Index != i {
					if fault.Kind != ScaleRange { // of an earlier super-group
						t.Fatalf("%g at %d gives fault %+v", w, i, fault)
					}
				}
				return
			}
		}
		if fault.Kind == NonFinite {
			t.Fatalf("finite weights give fault %+v", fault)
		}
	})
}

// TestFloatFormats holds the conversions against the definition, and ties to even.
func TestFloatFormats(t *testing.T) {
	for _, f := range []*floatFormat{e4m3, e2m1} {
		var values []float32
		for code := uint8(0); f.value(code) <= f.largest; code++ {
			value := f.value(code)
			if negative := code | 1<<f.signBit(); f.code(value) != code || f.code(-value) != negative && value != 0 {
				t.Errorf("code %#x is %g, which is code %#x, and %#x if negative", code, value, f.code(value), f.code(-value))
			}
			if len(values) > 0 && value <= values[len(values)-1] {
				t.Errorf("code %#x is %g, that before it %g", code, value, values[len(values)-1])
			}
			values = append(values, value)
			if value == f.largest {
				break
			}
		}
		for code := 1; code < len(values); code++ {
			middle := (values[code-1] + values[code]) / 2
			for x, want := range map[float32]int{
				math.Nextafter32(middle, 0): code - 1, math.Nextafter32(middle, infinity): code, middle: code - code%2,
			} {
				if got := f.code(x); got != uint8(want) {
					t.Errorf("%g is coded as %#x, want %#x", x, got, want)
				}
			}
		}
		last := uint8(len(values) - 1)
		for _, x := range []float32{f.largest, 1.01 * f.largest, 1e30, math.MaxFloat32} {
			if f.code(x) != last || f.round(-x) != -f.largest {
				t.Errorf("%g is coded as %#x", x, f.code(x))
			}
		}
	}
	if got := fmt.Sprint(e2m1Levels[:8], e4m3.value(0x7f), e4m3.value(0x08), e4m3.value(1)); got != "[0 0.5 1 1.5 2 3 4 6] 448 0.015625 0.001953125" {
		t.Error(got)
	}
}

// TestUnderflowsOfEncodings counts groups whose scale, or super-scale, is rounded to 0.
func TestUnderflowsOfEncodings(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 8))
	const columns = 2 * superSize
	const zeros = 32 // the first weights, of one group or two
	weights := make([]float32, columns)
	for i := zeros; i < columns; i++ {
		weights[i] = float32(random.NormFloat64())
		if i < superSize {
			weights[i] *= 1e-9
		}
	}
	for e := Q2K; e <= FP8; e++ {
		for _, method := range []Method{RoundToNearest, MeanSquares} {
			b := encodedBlock(e, method, Float32, 1, columns, rawFloat32(weights), nil)
			if e == FP8 { // others fix it
				b.ScaleDtype = ScaleFloat16
			}
			checkEncoded(t, b)
			quantizeScalar(&b)
			want := (superSize - zeros) / b.GroupSize
			switch {
			case e == NF4 || e == MXFP4 || e == MXFP8:
				want = 0 // its scales are as small as float32
			case e == FP8 && method == MeanSquares:
				want = 0 // small levels make up for the smallest scale
			}
			if b.Underflows != want {
				t.Errorf("encoding %d, method %d: %d groups underflow, want %d", e, method, b.Underflows, want)
			}
			flat := slices.IndexFunc(decodedBlock(Scalar, &b), func(w float32) bool { return w != 0 }) >= superSize
			if flat != (want > 0) {
				t.Errorf("encoding %d, method %d: small weights decode to 0: %v", e, method, flat)
			}
		}
	}
}

// TestSmallScales has weights whose scale, or super-scale, float16 rounds to 0: the search
// takes the smallest one, and small multiples or levels of it.
func TestSmallScales(t *testing.T) {
	for _, c := range []struct {
		encoding   Encoding
		size, most float64
	}{
		{Q3K, 1e-5, 0.2}, {Q6K, 1e-5, 0.05}, {Q6K, 1e-7, 0.2}, {IQ4XS, 2e-6, 0.12}, {IQ4NL, 1e-6, 0.21}, {FP8, 1e-8, 0.03}, {NF4, 1e-30, 0.087},
	} {
		random := rand.New(rand.NewPCG(7, 8))
		weights := make([]float32, 512)
		for i := range weights {
			weights[i] = float32(random.NormFloat64() * c.size)
		}
		b := encodedBlock(c.encoding, MeanSquares, Float32, 2, 256, rawFloat32(weights), nil)
		if c.encoding == FP8 { // others fix it
			b.ScaleDtype = ScaleFloat16
		}
		_, sums := checkEncoded(t, b)
		if rest := math.Sqrt(sums.Error / sums.Weight); rest > c.most {
			t.Errorf("encoding %d, weights of %g: relative error %g", c.encoding, c.size, rest)
		}
	}
}
