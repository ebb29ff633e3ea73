package quant

import (
	"math"
	"slices"

	"github.com/pyarrowquant/pyarrowquant/quant/internal/kernel"
)

// Skip in Options.Rows leaves a row out of the result.
const Skip = -1

// Settings say how a layer is quantized.
type Settings struct {
	BitWidth   int        `json:"bit_width"` // 2, 3, 4, 5, 6 or 8
	GroupSize  GroupSize  `json:"group_size"`
	Method     Method     `json:"method"`
	ZeroPoint  ZeroPoint  `json:"zero_point"`
	ScaleDtype ScaleDtype `json:"scale_dtype"`
	Encoding   Encoding   `json:"encoding"`
}

// Options of a quantization.
type Options struct {
	Settings
	// Choices are settings that Rows refers to: row i of the input has the settings
	// Choices[Rows[i]], or is left alone if Rows[i] is Skip. With no Choices, all
	// rows have Settings.
	Choices []Settings `json:"choices"`
	Rows    []int32    `json:"rows"`
	// LayerScales are the least scales of layers for encodings that have such: row i of the input
	// has at least LayerScales[i]. With none, and where it is 0, a layer has its own.
	LayerScales []float32 `json:"layer_scales"`
	// UnitLayerScales gives encodings with a scale of the layer a scale of 1, for engines that
	// store none.
	UnitLayerScales bool  `json:"unit_layer_scales"`
	MeasureOnly     bool  `json:"measure_only"`      // give the error columns, and no packed data
	ContinueOnError bool  `json:"continue_on_error"` // leave failing layers out
	Metrics         bool  `json:"metrics"`           // add the error columns
	Sort            bool  `json:"sort"`              // by layer name, else input order
	Threads         int   `json:"threads"`           // workers, at least 1
	FirstRow        int64 `json:"first_row"`         // row number of the first layer, for errors
	// TypeNames are the types of columns as the caller's users know them, for errors.
	TypeNames map[string]string `json:"type_names"`
	Kernel    Kernel            `json:"kernel"`
	Version   string            `json:"version"` // of the package, for the result's metadata
}

var bitWidths = []int{2, 3, 4, 5, 6, 8}

// Validate checks every bound. It wraps ErrArgument.
func (o *Options) Validate() error {
	for _, settings := range append([]Settings{o.Settings}, o.Choices...) {
		if err := settings.validate(); err != nil {
			return err
		}
	}
	for _, choice := range o.Rows {
		if choice < Skip || int(choice) >= len(o.Choices) {
			return argumentError("Invalid rows: %d refers to one of %d choices", choice, len(o.Choices))
		}
	}
	for _, scale := range o.LayerScales {
		if !(scale >= 0 && scale <= math.MaxFloat32) {
			return argumentError("Invalid layer_scales: %g", scale)
		}
	}
	return validThreads(o.Threads)
}

// leastLayerScale is that of a row of the input.
func (o *Options) leastLayerScale(row int64) float32 {
	if len(o.LayerScales) == 0 {
		return 0
	}
	return o.LayerScales[row-o.FirstRow]
}

func (s *Settings) validate() error {
	if !slices.Contains(bitWidths, s.BitWidth) {
		return argumentError("Invalid bit_width: %d. Must be 2, 4, or 8 (3, 5 and 6 also work)", s.BitWidth)
	}
	if !s.GroupSize.shared() && !validGroupSize(int64(s.GroupSize)) {
		return invalidGroupSize(s.GroupSize.String())
	}
	if d := s.Encoding.describe(); d != nil {
		return s.validateEncoding(d)
	}
	if s.GroupSize.shared() {
		return argumentError("Invalid group_size: %s. Encoding 'int' has groups of columns. Use encoding='fp8', or -1 for one group a row", s.GroupSize)
	}
	if s.Method == HalfQuadratic && s.ZeroPoint == SymmetricZero {
		return argumentError("Invalid zero_point: 'symmetric' leaves method 'hqq' nothing to choose. Use zero_point 'float' or 'integer', or method 'mse'")
	}
	return nil
}

// validateEncoding checks what an encoding other than "int" fixes.
func (s *Settings) validateEncoding(d *kernel.Description) error {
	if s.BitWidth != d.BitWidth {
		return argumentError("Invalid bit_width: %d. Encoding '%s' has %d", s.BitWidth, s.Encoding, d.BitWidth)
	}
	if d.GroupSize != 0 && int(s.GroupSize) != d.GroupSize {
		return argumentError("Invalid group_size: %s. Encoding '%s' has %d", s.GroupSize, s.Encoding, d.GroupSize)
	}
	if s.Method == HalfQuadratic {
		return argumentError("Invalid method: 'hqq' chooses zero-points, which encoding '%s' has not. Use method 'mse'", s.Encoding)
	}
	return nil
}

func validGroupSize(size int64) bool {
	return size == int64(WholeRow) || size >= 8 && size%8 == 0 && size <= 1<<31-8
}

func validThreads(threads int) error {
	if threads < 1 {
		return argumentError("Invalid threads: %d. Must be at least 1, or None for all CPUs of this process", threads)
	}
	return nil
}

// measures tells whether the error columns are wanted.
func (o *Options) measures() bool { return o.Metrics || o.MeasureOnly }

// errorColumns are the names of the error columns.
func (o *Options) errorColumns() []string {
	if o.MeasureOnly {
		return measuredColumns
	}
	return metricColumns
}

// layerSettings are the validated settings of some layers.
type layerSettings struct {
	Settings
	format   kernel.Format       // the kernels' form of them
	encoding *kernel.Description // nil for "int"
}

func newLayerSettings(s Settings) *layerSettings {
	return &layerSettings{Settings: s, encoding: s.Encoding.describe(), format: kernel.Format{
		BitWidth:   s.BitWidth,
		ZeroPoint:  kernel.ZeroPoint(s.ZeroPoint),
		ScaleDtype: kernel.ScaleDtype(s.ScaleDtype),
		Method:     kernel.Method(s.Method),
		Encoding:   kernel.Encoding(s.Encoding),
	}}
}

// division is what units of such a layer may divide.
func (s *layerSettings) division() division {
	switch {
	case s.GroupSize == WholeTensor:
		return anything
	case s.GroupSize == Blocks:
		return noBlocks
	case s.encoding != nil || s.Method != RoundToNearest:
		return noGroups
	default:
		return longGroups
	}
}

// encoded tells whether any layer may have another encoding than "int".
func (o *Options) encoded() bool {
	return slices.ContainsFunc(o.used(), func(s Settings) bool { return s.Encoding.describe() != nil })
}

// used are the settings that layers may have.
func (o *Options) used() []Settings {
	if len(o.Choices) > 0 {
		return o.Choices
	}
	return []Settings{o.Settings}
}

// rowSettings gives the settings of rows of the input, or nil for those to skip.
func (o *Options) rowSettings() func(row int64) *layerSettings {
	if len(o.Choices) == 0 {
		all := newLayerSettings(o.Settings)
		return func(int64) *layerSettings { return all }
	}
	choices := make([]*layerSettings, len(o.Choices))
	for i, s := range o.Choices {
		choices[i] = newLayerSettings(s)
	}
	return func(row int64) *layerSettings {
		if choice := o.Rows[row-o.FirstRow]; choice != Skip {
			return choices[choice]
		}
		return nil
	}
}
