package kernel

import "unsafe"

// tiles calls visit for each tile of n rows.
func (v *vectorSet) tiles(f *search, b *Block, visit func(n int)) {
	for first := 0; first < f.n && !b.stopped(); first += tileSize {
		n := min(tileSize, f.n-first)
		if f.n > tileSize {
			v.loadTile(f, b, first, n)
		}
		visit(n)
	}
}

// loadTile fills the tiles with n weights, and their importance.
func (v *vectorSet) loadTile(f *search, b *Block, first, n int) {
	v.fill(&f.tile, &f.weights, b.Type, first, n)
	if b.Importance != nil {
		v.fill(&f.importanceTile, &f.importance, Float32, first, n)
	}
}

// fill transposes all but the last elements, fewer than 8, with vectors, unless
// they are float64.
func (v *vectorSet) fill(tile *[tileSize][searchGroups]float32, groups *[searchGroups]*byte, t ElementType, first, n int) {
	size := t.Size()
	whole := 0
	if t != Float64 {
		whole = n &^ 7
	}
	if whole > 0 {
		v.transpose[t](&groups[0], first*size, whole, &tile[0][0])
	}
	var rest [8]float32
	for i := whole; i < n; i += len(rest) {
		some := rest[:min(len(rest), n-i)]
		for k, group := range groups {
			load(some, unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(group), (first+i)*size)), len(some)*size), t)
			for j, w := range some {
				tile[i+j][k] = w
			}
		}
	}
}
