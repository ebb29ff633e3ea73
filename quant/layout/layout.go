// Package layout puts codes, scales and zero-points of a layer in the order that
// inference engines want them. Codes come as quant gives them: rows of little-endian
// bit streams, each padded to a byte. Work is shared out over rows.
package layout

import (
	"encoding/binary"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/pyarrowquant/pyarrowquant/quant"
)

// Layer is a matrix of rows whose columns share scales in groups.
type Layer struct {
	Rows, Groups int
	RowBytes     int // of codes
	BitWidth     int
	Codes        []byte
	Scales       []float32 // Rows * Groups
	ZeroPoints   []float32 // Rows * Groups
	// Of an encoding that has such, one a super-group.
	SuperScales, SuperMinimums []float32
}

// leastBytes is what is worth a goroutine.
const leastBytes = 1 << 18

// overRows calls work for spans of rows, on up to threads goroutines, where there
// are so many bytes a row.
func overRows(threads, rows, rowBytes int, work func(first, end int)) error {
	least := max(1, leastBytes/max(1, rowBytes))
	spans := max(1, min(threads, rows/least))
	if spans == 1 {
		return quant.Recovered(func() error { work(0, rows); return nil })
	}
	var group errgroup.Group
	for i := range spans {
		group.Go(func() error {
			return quant.Recovered(func() error {
				work(rows*i/spans, rows*(i+1)/spans)
				return nil
			})
		})
	}
	return group.Wait()
}

func (l *Layer) check() error {
	if l.Rows < 0 || l.Groups < 0 || l.RowBytes < 0 || !slices.Contains([]int{2, 3, 4, 5, 6, 8}, l.BitWidth) ||
		len(l.Codes) != l.Rows*l.RowBytes ||
		len(l.Scales) != l.Rows*l.Groups || len(l.ZeroPoints) != l.Rows*l.Groups {
		return fmt.Errorf("%w: %d rows of %d bytes and %d groups, with %d bytes of codes, %d scales and %d zero-points",
			quant.ErrArgument, l.Rows, l.RowBytes, l.Groups, len(l.Codes), len(l.Scales), len(l.ZeroPoints))
	}
	return nil
}

// checkSize refuses an output of another size.
func checkSize(what string, out []byte, size int) error {
	if len(out) != size {
		return fmt.Errorf("%w: %s take %d bytes, there is room for %d", quant.ErrArgument, what, size, len(out))
	}
	return nil
}

// PadRows copies rows of codes, each with zeros at its end up to a width.
func PadRows(out []byte, l Layer, width, threads int) error {
	if err := l.check(); err != nil {
		return err
	}
	if width < l.RowBytes {
		return fmt.Errorf("%w: rows of %d bytes do not fit into %d", quant.ErrArgument, l.RowBytes, width)
	}
	if err := checkSize("padded rows", out, l.Rows*width); err != nil {
		return err
	}
	return overRows(threads, l.Rows, width, func(first, end int) {
		if width == l.RowBytes {
			copy(out[first*width:end*width], l.Codes[first*width:end*width])
			return
		}
		for row := first; row < end; row++ {
			copied := copy(out[row*width:(row+1)*width], l.Codes[row*l.RowBytes:(row+1)*l.RowBytes])
			clear(out[row*width+copied : (row+1)*width])
		}
	})
}

// PackZeroPoints packs whole zero-points: each row a little-endian bit stream,
// padded to a byte.
func PackZeroPoints(out []byte, l Layer, threads int) error {
	if err := l.check(); err != nil {
		return err
	}
	width := (l.Groups*l.BitWidth + 7) / 8
	if err := checkSize("packed zero-points", out, l.Rows*width); err != nil {
		return err
	}
	return overRows(threads, l.Rows, 4*l.Groups, func(first, end int) {
		for row := first; row < end; row++ {
			packed := out[row*width : (row+1)*width]
			clear(packed)
			for i, z := range l.ZeroPoints[row*l.Groups : (row+1)*l.Groups] {
				put(packed, i*l.BitWidth, uint32(z))
			}
		}
	})
}

// PackZeroPointsDown packs whole zero-points down the rows: each group of columns is
// a little-endian bit stream of words of 32 bits, which lie in rows of one word a
// group.
func PackZeroPointsDown(out []byte, l Layer, threads int) error {
	if err := l.check(); err != nil {
		return err
	}
	words := (l.Rows*l.BitWidth + 31) / 32
	if err := checkSize("packed zero-points", out, 4*words*l.Groups); err != nil {
		return err
	}
	// A row of words begins where a row of zero-points does after each 32 rows.
	blocks := (l.Rows + 31) / 32
	return overRows(threads, blocks, 128*l.Groups, func(first, end int) {
		clear(out[4*l.Groups*l.BitWidth*first : min(4*l.Groups*l.BitWidth*end, len(out))])
		for row := 32 * first; row < min(32*end, l.Rows); row++ {
			word, shift := row*l.BitWidth/32, row*l.BitWidth%32
			zeros := l.ZeroPoints[row*l.Groups : (row+1)*l.Groups]
			orWords(out[4*word*l.Groups:], zeros, shift)
			if shift+l.BitWidth > 32 {
				orWords(out[4*(word+1)*l.Groups:], zeros, shift-32)
			}
		}
	})
}

// orWords adds codes to words, shifted to the left, or to the right where negative.
func orWords(words []byte, zeros []float32, shift int) {
	for i, z := range zeros {
		at := words[4*i : 4*i+4]
		added := uint32(z) << max(shift, 0) >> max(-shift, 0)
		binary.LittleEndian.PutUint32(at, binary.LittleEndian.Uint32(at)|added)
	}
}

// put adds a code to a bit stream that has zeros there.
func put(stream []byte, bit int, code uint32) {
	shifted := code << (bit % 8)
	stream[bit/8] |= byte(shifted)
	if shifted > 255 {
		stream[bit/8+1] |= byte(shifted >> 8)
	}
}
