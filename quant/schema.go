package quant

import (
	"encoding/json"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"
)

// Names of columns, in and out.
const (
	columnLayerName     = "layer_name"
	columnWeights       = "weights"
	columnShape         = "shape"
	columnDtype         = "dtype"
	columnImportance    = "importance"
	columnQuantizedData = "quantized_data"
	columnScales        = "scales"
	columnZeroPoints    = "zero_points"
	columnBitWidth      = "bit_width"
	columnGroupSize     = "group_size"
	columnEncoding      = "encoding"
	columnLevels        = "levels"
	columnSuperScales   = "super_scales"
	columnSuperMinimums = "super_minimums"
)

var (
	metricColumns     = []string{"mse", "relative_error", "cosine", "max_abs_error"}
	comparisonColumns = append(slices.Clone(metricColumns), "signal_to_noise_db", "norm")
	measuredColumns   = append(slices.Clone(comparisonColumns), "weighted_mse", "weighted_relative_error", "weighted_cosine")
)

// MetadataKey is the key of the result schema's metadata; its value is JSON.
const MetadataKey = "pyarrowquant"

// FormatVersion is the version of the layout of results. Readers refuse a later one.
const FormatVersion = 1

const (
	weightSchema = "layer_name: string, weights: list<float32>, shape: list<int64> (optional)"
	resultSchema = "layer_name: string, quantized_data: binary, scales: list<float32>, zero_points: list<float32>, shape: list<int64>, bit_width: uint8, group_size: int32"
)

// weightColumns are positions of columns; -1 means absent.
type weightColumns struct {
	layerName, weights, shape, dtype, importance int
}

// Validate checks the options and the schema of a table of weights. It wraps
// ErrArgument or ErrSchema.
func Validate(schema *arrow.Schema, o Options) error {
	if err := o.Validate(); err != nil {
		return err
	}
	_, err := resolveWeights(schema, o.TypeNames)
	return err
}

func resolveWeights(schema *arrow.Schema, typeNames map[string]string) (weightColumns, error) {
	f := columnFinder{schema: schema, typeNames: typeNames, expected: weightSchema}
	columns := weightColumns{
		layerName:  f.required(columnLayerName, "string", isText),
		weights:    f.required(columnWeights, "list<float32> (or a list of float16 or float64, or raw bytes with a 'dtype' column)", isWeights),
		shape:      f.optional(columnShape, "list<int64>", isShape),
		dtype:      -1,
		importance: f.optional(columnImportance, "list<float32>", isImportance),
	}
	for _, column := range []*int{&columns.shape, &columns.importance} {
		if *column >= 0 && schema.Field(*column).Type.ID() == arrow.NULL {
			*column = -1 // every value is null, which is as good as absent
		}
	}
	if f.err == nil && isRaw(schema.Field(columns.weights).Type) {
		f.expected = "layer_name: string, weights: binary, dtype: string (F32, F16 or BF16), shape: list<int64> (optional)"
		columns.dtype = f.required(columnDtype, "string (F32, F16 or BF16)", isText)
	}
	return columns, f.err
}

// quantizedColumns are positions of columns of a result.
type quantizedColumns struct {
	layerName, quantizedData, scales, zeroPoints, shape, bitWidth, groupSize int
	// Those of encodedNames may be absent.
	encodings [4]int
}

// resolveQuantized checks the schema of a result of Quantize.
func resolveQuantized(schema *arrow.Schema, typeNames map[string]string) (quantizedColumns, error) {
	f := columnFinder{schema: schema, typeNames: typeNames, expected: resultSchema}
	columns := quantizedColumns{
		layerName:     f.required(columnLayerName, "string", isText),
		quantizedData: f.required(columnQuantizedData, "binary", isRaw),
		scales:        f.required(columnScales, "list<float32>", isFloat32List),
		zeroPoints:    f.required(columnZeroPoints, "list<float32>", isFloat32List),
		shape:         f.required(columnShape, "list<int64>", isIntegerList),
		bitWidth:      f.required(columnBitWidth, "uint8", isInteger),
		groupSize:     f.required(columnGroupSize, "int32", isInteger),
	}
	for i, name := range encodedNames {
		columns.encodings[i] = f.optional(name, encodedTypes[i].String(), encodedAccepts[i])
		if at := columns.encodings[i]; at >= 0 && schema.Field(at).Type.ID() == arrow.NULL {
			columns.encodings[i] = -1
		}
	}
	return columns, f.err
}

// columnFinder looks columns up by name and keeps the first error.
type columnFinder struct {
	schema    *arrow.Schema
	typeNames map[string]string // of columns, as the caller's users know them
	expected  string            // shown when a required column is missing
	err       error
}

func (f *columnFinder) required(name, expectedType string, accepts func(arrow.DataType) bool) int {
	position := f.optional(name, expectedType, accepts)
	if position < 0 && f.err == nil {
		f.err = schemaError("Missing required column '%s'. Expected schema: %s", name, f.expected)
	}
	return position
}

func (f *columnFinder) optional(name, expectedType string, accepts func(arrow.DataType) bool) int {
	positions := f.schema.FieldIndices(name)
	if f.err != nil || len(positions) == 0 {
		return -1
	}
	if len(positions) > 1 {
		f.err = schemaError("Column '%s' is there %d times; keep one", name, len(positions))
		return -1
	}
	if dt := f.schema.Field(positions[0]).Type; !accepts(dt) {
		f.err = schemaError("Column '%s' has type %s; expected type %s", name, f.typeName(name, dt), expectedType)
		return -1
	}
	return positions[0]
}

func (f *columnFinder) typeName(column string, dt arrow.DataType) string {
	if name, ok := f.typeNames[column]; ok {
		return name
	}
	return dt.String()
}

func isText(dt arrow.DataType) bool {
	switch dt := dt.(type) {
	case *arrow.StringType, *arrow.LargeStringType, *arrow.StringViewType:
		return true
	case *arrow.DictionaryType:
		return isText(dt.ValueType)
	}
	return false
}

func isRaw(dt arrow.DataType) bool {
	switch dt.ID() {
	case arrow.BINARY, arrow.LARGE_BINARY, arrow.BINARY_VIEW:
		return true
	}
	return false
}

func isWeights(dt arrow.DataType) bool {
	return isRaw(dt) || isNestedList(dt)
}

func isFloatList(dt arrow.DataType) bool {
	return isListOf(dt, arrow.FLOAT32, arrow.FLOAT16, arrow.FLOAT64)
}

func isImportance(dt arrow.DataType) bool { return isFloatList(dt) || dt.ID() == arrow.NULL }

func isFloat32List(dt arrow.DataType) bool { return isListOf(dt, arrow.FLOAT32) }

func isIntegerList(dt arrow.DataType) bool {
	list, ok := dt.(arrow.ListLikeType)
	return ok && dt.ID() != arrow.MAP && isInteger(list.Elem())
}

func isShape(dt arrow.DataType) bool { return isIntegerList(dt) || dt.ID() == arrow.NULL }

func isInteger(dt arrow.DataType) bool { return arrow.IsInteger(dt.ID()) }

func isListOf(dt arrow.DataType, elements ...arrow.Type) bool {
	list, ok := dt.(arrow.ListLikeType)
	if !ok || dt.ID() == arrow.MAP {
		return false
	}
	for _, element := range elements {
		if list.Elem().ID() == element {
			return true
		}
	}
	return false
}

// resultFields is the schema of a result. large is for layers of over 2 GiB.
func resultFields(o *Options, large bool) *arrow.Schema {
	float32s := listOf(arrow.PrimitiveTypes.Float32, large)
	fields := []arrow.Field{{Name: columnLayerName, Type: arrow.BinaryTypes.String, Nullable: true}}
	if !o.MeasureOnly {
		fields = append(fields,
			arrow.Field{Name: columnQuantizedData, Type: binaryType(large), Nullable: true},
			arrow.Field{Name: columnScales, Type: float32s, Nullable: true},
			arrow.Field{Name: columnZeroPoints, Type: float32s, Nullable: true},
		)
	}
	fields = append(fields,
		arrow.Field{Name: columnShape, Type: listOf(arrow.PrimitiveTypes.Int64, false), Nullable: true},
		arrow.Field{Name: columnBitWidth, Type: arrow.PrimitiveTypes.Uint8, Nullable: true},
		arrow.Field{Name: columnGroupSize, Type: arrow.PrimitiveTypes.Int32, Nullable: true},
	)
	if o.encoded() && !o.MeasureOnly {
		fields = append(fields, encodedFields()...)
	}
	if o.measures() {
		fields = append(fields, float64Fields(o.errorColumns())...)
	}
	metadata := arrow.NewMetadata([]string{MetadataKey}, []string{metadataJSON(o)})
	return arrow.NewSchema(fields, &metadata)
}

// metadataJSON has null for what differs between layers, and for zero_point where there are
// encodings, which fix it.
func metadataJSON(o *Options) string {
	settings := o.used()
	zeroPoint, encoding := common(settings, func(s Settings) ZeroPoint { return s.ZeroPoint }), (*Encoding)(nil)
	if o.encoded() {
		zeroPoint, encoding = nil, common(settings, func(s Settings) Encoding { return s.Encoding })
	}
	encoded, err := json.Marshal(struct {
		FormatVersion int         `json:"format_version"`
		Encoding      *Encoding   `json:"encoding,omitempty"`
		Method        *Method     `json:"method"`
		ZeroPoint     *ZeroPoint  `json:"zero_point"`
		ScaleDtype    *ScaleDtype `json:"scale_dtype"`
		Version       string      `json:"version"`
	}{
		FormatVersion,
		encoding,
		common(settings, func(s Settings) Method { return s.Method }),
		zeroPoint,
		common(settings, func(s Settings) ScaleDtype { return s.ScaleDtype }),
		o.Version,
	})
	if err != nil {
		panic(err) // names always encode
	}
	return string(encoded)
}

// common is the value that all settings have, of which there is at least one, or nil.
func common[T comparable](settings []Settings, value func(Settings) T) *T {
	first := value(settings[0])
	for _, s := range settings {
		if value(s) != first {
			return nil
		}
	}
	return &first
}

// weightFields is the schema of decoded layers.
func weightFields(element arrow.DataType, large bool) *arrow.Schema {
	return arrow.NewSchema([]arrow.Field{
		{Name: columnLayerName, Type: arrow.BinaryTypes.String, Nullable: true},
		{Name: columnWeights, Type: listOf(element, large), Nullable: true},
		{Name: columnShape, Type: listOf(arrow.PrimitiveTypes.Int64, false), Nullable: true},
	}, nil)
}

// comparisonFields is the schema of errors of layers.
func comparisonFields() *arrow.Schema {
	return arrow.NewSchema(append([]arrow.Field{
		{Name: columnLayerName, Type: arrow.BinaryTypes.String, Nullable: true},
		{Name: columnShape, Type: listOf(arrow.PrimitiveTypes.Int64, false), Nullable: true},
	}, float64Fields(comparisonColumns)...), nil)
}

func float64Fields(names []string) []arrow.Field {
	fields := make([]arrow.Field, len(names))
	for i, name := range names {
		fields[i] = arrow.Field{Name: name, Type: arrow.PrimitiveTypes.Float64, Nullable: true}
	}
	return fields
}

func binaryType(large bool) arrow.DataType {
	if large {
		return arrow.BinaryTypes.LargeBinary
	}
	return arrow.BinaryTypes.Binary
}

func listOf(element arrow.DataType, large bool) arrow.DataType {
	if large {
		return arrow.LargeListOf(element)
	}
	return arrow.ListOf(element)
}
