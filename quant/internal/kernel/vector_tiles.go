package kernel

import "unsafe"

// eachPart calls sums for each part of the groups that tiles have at a time, of n rows, and adds
// what that gives to arrays.
func (v *vectorSet) eachPart(f *search, b *Block, arrays []*ofLanes, sums func(n int)) {
	if f.n <= tileSize {
		if !b.stopped() {
			sums(f.n)
		}
		return
	}
	totals := make([][searchGroups]float32, len(arrays)) // of the only tile
	for first := 0; first < f.n && !b.stopped(); first += tileSize {
		n := min(tileSize, f.n-first)
		v.loadTiles(f, b, first, n)
		sums(n)
		for i := range totals {
			for k := range totals[i] {
				totals[i][k] += arrays[i][k]
			}
		}
	}
	for i := range totals {
		copy(arrays[i][:], totals[i][:])
	}
}

// loadTiles fills the tiles with n weights, and their importance.
func (v *vectorSet) loadTiles(f *search, b *Block, first, n int) {
	for t := range f.tiles {
		lane := t * searchGroups
		v.fill(f.tile[t*n:][:n], f.weights[lane:][:searchGroups], b.Type, first)
		if b.Importance != nil {
			v.fill(f.importanceTile[t*n:][:n], f.importance[lane:][:searchGroups], Float32, first)
		}
	}
}

// fill transposes all but the last elements, fewer than 8, with vectors, unless
// they are float64.
func (v *vectorSet) fill(tile [][searchGroups]float32, groups []*byte, t ElementType, first int) {
	n, size := len(tile), t.Size()
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
