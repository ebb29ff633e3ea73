package kernel

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"strings"
	"syscall"
	"testing"
)

var encNames = []string{"int", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq4_nl", "iq4_xs", "nf4", "mxfp4", "mxfp8", "nvfp4", "fp8"}

func TestTune(t *testing.T) {
	want := os.Getenv("TUNE")
	if want == "" {
		t.Skip()
	}
	var base map[string]float64
	raw, _ := os.ReadFile("/tmp/enc/base.json")
	json.Unmarshal(raw, &base)
	k, _ := Named(os.Getenv("KERNEL"))
	for _, data := range []string{"normal", "t5"} {
		raw, _ := os.ReadFile("/tmp/enc/" + data + ".f32")
		for e := Q2K; e <= FP8; e++ {
			if want != "all" && !strings.Contains(want, encNames[e]) {
				continue
			}
			for _, m := range []Method{RoundToNearest, MeanSquares} {
				d := e.Describe()
				n := 1 << 20
				columns := 4096
				rows := n / columns
				group := d.GroupSize
				if group == 0 {
					group = columns
				}
				b := &Block{Format: Format{BitWidth: d.BitWidth, Method: m, Encoding: e}, Type: Float32, Rows: rows, Columns: columns, GroupSize: group, Weights: raw[:4*n]}
				b.Packed = make([]byte, rows*RowBytes(columns, d.BitWidth))
				b.Scales = make([]float32, rows*Groups(columns, group))
				b.ZeroPoints = make([]float32, len(b.Scales))
				b.SuperScales = make([]float32, rows*d.SuperScales(columns))
				b.SuperMinimums = make([]float32, rows*d.SuperScales(columns))
				b.LayerScale = 0x1p-14
				b.Sums = new(Sums)
				begin := cpuNow()
				fault := k.Quantize(b)
				sums := *b.Sums
				b.Sums = nil
				begin = cpuNow()
				for range 3 {
					k.Quantize(b)
				}
				took := (cpuNow() - begin) / 3
				fmt.Printf("%s %s %d: rel %.5f ratio %.4f  %.3f GB/s %v\n", data, encNames[e], m, math.Sqrt(sums.Error/sums.Weight), sums.Error/base[data+" "+encNames[e]], 4*float64(n)/took/1e9, fault)
			}
		}
	}
}

func cpuNow() float64 {
	var r syscall.Rusage
	syscall.Getrusage(0, &r)
	return float64(r.Utime.Sec) + float64(r.Utime.Usec)/1e6
}
