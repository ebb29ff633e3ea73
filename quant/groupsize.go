package quant

import (
	"encoding/json"
	"slices"
	"strconv"

	"github.com/pyarrowquant/pyarrowquant/quant/internal/kernel"
)

// GroupSize is what shares a scale: so many consecutive columns of a row, a multiple of 8, or
// one of the constants.
type GroupSize int

const (
	WholeRow    GroupSize = -1 - iota
	WholeTensor           // "tensor": all weights of the layer
	Blocks                // "block": kernel.BlockSize rows and as many columns, or what is left at the ends
)

var groupSizeNames = []string{"tensor", "block"} // in the order of the constants

// UnmarshalJSON reads a number or a name.
func (g *GroupSize) UnmarshalJSON(text []byte) error {
	var name string
	if json.Unmarshal(text, &name) != nil {
		if err := json.Unmarshal(text, (*int)(g)); err == nil && g.shared() { // which have names
			return invalidGroupSize(strconv.Itoa(int(*g)))
		} else {
			return err
		}
	}
	i := slices.Index(groupSizeNames, name)
	if i < 0 {
		return invalidGroupSize("'" + name + "'")
	}
	*g = WholeTensor - GroupSize(i)
	return nil
}

func invalidGroupSize(said string) error {
	return argumentError("Invalid group_size: %s. Must be a multiple of 8 from 8 to 2147483640, or -1 for one group a row", said)
}

func (g GroupSize) MarshalJSON() ([]byte, error) {
	if g.shared() {
		return json.Marshal(g.String())
	}
	return json.Marshal(int(g))
}

func (g GroupSize) String() string {
	if g.shared() {
		return groupSizeNames[WholeTensor-g]
	}
	return strconv.Itoa(int(g))
}

// shared tells whether rows share scales.
func (g GroupSize) shared() bool { return g == WholeTensor || g == Blocks }

// inRow is what of a row has one scale, as tables say it: so many columns, or WholeRow.
func (g GroupSize) inRow() int {
	switch g {
	case WholeTensor:
		return int(WholeRow)
	case Blocks:
		return kernel.BlockSize
	default:
		return int(g)
	}
}

// sharedScales is how many scales rows share.
func (g GroupSize) sharedScales(m matrix) int {
	switch g {
	case WholeTensor:
		return 1
	case Blocks:
		return kernel.Groups(m.rows, kernel.BlockSize) * kernel.Groups(m.columns, kernel.BlockSize)
	default:
		return 0
	}
}
