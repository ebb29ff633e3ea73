//go:build !race && amd64

package kernel

// Elsewhere plain loads and stores are in no order, and nothing is streamed.

import (
	"bytes"
	"fmt"
	"runtime"
	"testing"
)

// Locked instructions, as those of sync/atomic, are fences too. These are not.

//go:noinline
func plainStore(to *int, value int) { *to = value }

//go:noinline
func plainLoad(from *int) int { return *from }

// TestOutputsAreSeen has another core read outputs as soon as a plain store tells
// it that they are there. Without a fence it finds older ones in every other round.
func TestOutputsAreSeen(t *testing.T) {
	if runtime.GOMAXPROCS(0) < 2 || runtime.NumCPU() < 2 {
		t.Skip("needs two cores")
	}
	for _, k := range All()[1:] {
		for method := RoundToNearest; method <= HalfQuadratic; method++ {
			t.Run(fmt.Sprintf("%s/%d", k.Name, method), func(t *testing.T) {
				checkSeen(t, method, func(b *Block, _ Parameters) { k.Quantize(b) })
			})
		}
		t.Run(k.Name+"/part", func(t *testing.T) { checkSeen(t, RoundToNearest, k.Code) })
	}
}

// checkSeen codes two groups in turns to the same place.
func checkSeen(t *testing.T, method Method, code func(*Block, Parameters)) {
	const rounds, columns, line = 200, 2 * minStreamed, 64
	var blocks [2]Block
	var parameters [2]Parameters
	var want [2][]byte
	packed := make([]byte, columns)
	for i := range blocks {
		weights := make([]float32, columns)
		for j := range weights {
			weights[j] = float32((j + 128*i) % 256)
		}
		blocks[i] = Block{
			Format: Format{BitWidth: 8, Method: method}, Rows: 1, Columns: columns, GroupSize: columns, Weights: rawFloat32(weights),
			Packed: packed, Scales: make([]float32, 1), ZeroPoints: make([]float32, 1),
		}
		parameters[i], _ = Fit(0, 255, blocks[i].Format)
		code(&blocks[i], parameters[i])
		want[i] = bytes.Clone(packed)
	}
	var done, seen int // the last round that was coded, and read
	late := make(chan int)
	go func() {
		count := 0
		for round := 1; round <= rounds; round++ {
			for plainLoad(&done) != round {
			}
			for at := columns - line; at >= 0; at -= line { // from the last line on
				if packed[at] != want[round%2][at] {
					count++
					break
				}
			}
			plainStore(&seen, round)
		}
		late <- count
	}()
	for round := 1; round <= rounds; round++ {
		code(&blocks[round%2], parameters[round%2])
		plainStore(&done, round)
		for plainLoad(&seen) != round {
		}
	}
	if count := <-late; count > 0 {
		t.Errorf("older outputs in %d of %d rounds", count, rounds)
	}
}
