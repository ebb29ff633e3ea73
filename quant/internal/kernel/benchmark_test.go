package kernel

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// Blocks of whole rows, super-groups and steps of all loops, as large layers are cut into.
const (
	benchmarkRows    = 16
	benchmarkColumns = 4096
	benchmarkWeights = benchmarkRows * benchmarkColumns
)

// benchmarked is a way to code weights, by the name that users know.
type benchmarked struct {
	name string
	Format
	element ElementType
}

var integers = []benchmarked{
	{"int of 2 bits", Format{BitWidth: 2}, Float32},
	{"int of 3 bits", Format{BitWidth: 3}, Float32},
	{"int of 4 bits", Format{BitWidth: 4}, Float32},
	{"int of 4 bits, float16 weights", Format{BitWidth: 4}, Float16},
	{"int of 4 bits, bfloat16 weights", Format{BitWidth: 4}, BFloat16},
	{"int of 8 bits", Format{BitWidth: 8}, Float32},
}

var encoded = []benchmarked{
	{"q4_k", Format{Encoding: Q4K}, Float32},
	{"q6_k", Format{Encoding: Q6K}, Float32},
	{"iq4_nl", Format{Encoding: IQ4NL}, Float32},
	{"nf4", Format{Encoding: NF4}, Float32},
	{"mxfp4", Format{Encoding: MXFP4}, Float32},
	{"mxfp8", Format{Encoding: MXFP8}, Float32},
	{"nvfp4", Format{Encoding: NVFP4}, Float32},
	{"fp8", Format{Encoding: FP8}, Float32},
}

// block is of weights to be coded, without error sums.
func (b benchmarked) block(method Method, random *rand.Rand) Block {
	weights := randomWeights(random, benchmarkWeights, b.element, 0)
	if b.Encoding != Integer {
		block := encodedBlock(b.Encoding, method, b.element, benchmarkRows, benchmarkColumns, weights, nil)
		if block.Sums = nil; b.Encoding.Describe().GroupSize == 0 {
			block.GroupSize, block.Scales = benchmarkColumns, block.Scales[:benchmarkRows]
		}
		return block
	}
	const groupSize = 128
	block := Block{
		Format: b.Format, Type: b.element, Rows: benchmarkRows, Columns: benchmarkColumns, GroupSize: groupSize, Weights: weights,
		Packed: make([]byte, RowBytes(benchmarkWeights, b.BitWidth)),
		Scales: make([]float32, benchmarkWeights/groupSize), ZeroPoints: make([]float32, benchmarkWeights/groupSize),
	}
	block.Method = method
	return block
}

// coded is what a block was coded to.
func (b benchmarked) coded(block *Block) *CodedBlock {
	c := &CodedBlock{
		BitWidth: block.BitWidth, Rows: block.Rows, Columns: block.Columns, GroupSize: block.GroupSize,
		Packed: block.Packed, Scales: rawFloat32(block.Scales), Weights: make([]byte, 4*benchmarkWeights),
	}
	if block.ZeroPoints != nil {
		c.ZeroPoints = rawFloat32(block.ZeroPoints)
	}
	if d := b.Encoding.Describe(); d != nil {
		c.Levels = d.Levels
	}
	return c
}

// withAll has all kernels do the same work.
func withAll(b *testing.B, ways []benchmarked, run func(b *testing.B, k Kernel, each benchmarked)) {
	for _, k := range All() {
		for _, each := range ways {
			b.Run(k.Name+"/"+each.name, func(b *testing.B) {
				b.SetBytes(int64(benchmarkWeights * each.element.Size()))
				run(b, k, each)
			})
		}
	}
}

func benchmarkQuantize(b *testing.B, k Kernel, block Block) {
	for b.Loop() {
		if fault := k.Quantize(&block); fault.Kind != NoFault {
			b.Fatal(fault)
		}
	}
}

func BenchmarkRoundToNearest(b *testing.B) {
	withAll(b, slices.Concat(integers, encoded), func(b *testing.B, k Kernel, each benchmarked) {
		benchmarkQuantize(b, k, each.block(RoundToNearest, rand.New(rand.NewPCG(6, 7))))
	})
}

func BenchmarkMetrics(b *testing.B) {
	withAll(b, slices.Concat(integers, encoded), func(b *testing.B, k Kernel, each benchmarked) {
		block := each.block(RoundToNearest, rand.New(rand.NewPCG(6, 7)))
		block.Sums = new(Sums)
		benchmarkQuantize(b, k, block)
	})
}

func BenchmarkMeanSquares(b *testing.B) {
	withAll(b, slices.Concat(integers, encoded), func(b *testing.B, k Kernel, each benchmarked) {
		benchmarkQuantize(b, k, each.block(MeanSquares, rand.New(rand.NewPCG(6, 7))))
	})
}

func BenchmarkImportance(b *testing.B) {
	withAll(b, slices.Concat(integers, encoded), func(b *testing.B, k Kernel, each benchmarked) {
		random := rand.New(rand.NewPCG(6, 7))
		block := each.block(MeanSquares, random)
		block.Importance = make([]float32, benchmarkColumns)
		for i := range block.Importance {
			block.Importance[i] = random.Float32()
		}
		benchmarkQuantize(b, k, block)
	})
}

func BenchmarkHalfQuadratic(b *testing.B) {
	withAll(b, integers, func(b *testing.B, k Kernel, each benchmarked) {
		each.ZeroPoint = FloatZero // whole ones are looked at but once in most groups
		benchmarkQuantize(b, k, each.block(HalfQuadratic, rand.New(rand.NewPCG(6, 7))))
	})
}

func BenchmarkDequantize(b *testing.B) {
	isShort := func(each benchmarked) bool { return each.element != Float32 } // codes are the same
	withAll(b, slices.DeleteFunc(slices.Concat(integers, encoded), isShort), func(b *testing.B, k Kernel, each benchmarked) {
		block := each.block(RoundToNearest, rand.New(rand.NewPCG(6, 7)))
		k.Quantize(&block)
		coded := each.coded(&block)
		for b.Loop() {
			k.Dequantize(coded)
		}
	})
}
