package quant

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Sentinels that callers tell apart with errors.Is.
var (
	// ErrArgument: an option is out of bounds.
	ErrArgument = errors.New("invalid argument")
	// ErrSchema: a column is missing or has a type that cannot be read.
	ErrSchema = errors.New("invalid schema")
	// ErrMemory: an output buffer could not be allocated.
	ErrMemory = errors.New("out of memory")
	// ErrUnreadable: memory of the input is not there any more.
	ErrUnreadable = errors.New("unreadable memory")
)

// userError has a text of its own and wraps a sentinel.
type userError struct {
	sentinel error
	text     string
}

func (e userError) Error() string { return e.text }
func (e userError) Unwrap() error { return e.sentinel }

func argumentError(format string, values ...any) error {
	return userError{ErrArgument, fmt.Sprintf(format, values...)}
}

func schemaError(format string, values ...any) error {
	return userError{ErrSchema, fmt.Sprintf(format, values...)}
}

func unreadableError(address uintptr) error {
	return userError{ErrUnreadable, fmt.Sprintf(
		"memory of the input, at 0x%x, cannot be read any more: a mapped file was cut short, or its disk has an error",
		address)}
}

// Kind says what is wrong with a layer.
type Kind string

const (
	KindNonFinite     Kind = "non_finite"
	KindShapeMismatch Kind = "shape_mismatch"
	KindNull          Kind = "null"
	KindCorrupt       Kind = "corrupt"
	KindScaleRange    Kind = "scale_range"
	KindImportance    Kind = "importance"
	KindMissing       Kind = "missing"
	KindDuplicate     Kind = "duplicate"
)

// LayerError is what is wrong with one layer. Name is nil where the name
// itself cannot be read; Row counts from 0 over the whole input; Index is an
// element of the layer, or nil.
type LayerError struct {
	Name    *string `json:"layer_name"`
	Row     int64   `json:"row"`
	Index   *int64  `json:"index"`
	Kind    Kind    `json:"kind"`
	Message string  `json:"message"`
}

func (e *LayerError) Error() string { return e.Message }

// name is the layer's name, or "" where it cannot be read.
func (e *LayerError) name() string {
	if e.Name == nil {
		return ""
	}
	return *e.Name
}

// LayerErrors is one or more failing layers, in the order of their rows.
type LayerErrors []*LayerError

func (e LayerErrors) Error() string {
	if len(e) == 1 {
		return e[0].Message
	}
	lines := make([]string, 0, len(e)+1)
	lines = append(lines, fmt.Sprintf("%d layers failed:", len(e)))
	for _, layer := range e {
		lines = append(lines, "  "+layer.Message)
	}
	return strings.Join(lines, "\n")
}

func (e LayerErrors) sort() {
	slices.SortFunc(e, func(a, b *LayerError) int { return cmp.Compare(a.Row, b.Row) })
}

// in sorts the errors and says which table they are about.
func (e LayerErrors) in(table string) LayerErrors {
	e.sort()
	for _, layer := range e {
		layer.Message = fmt.Sprintf("In %s: %s", table, layer.Message)
	}
	return e
}

// problem is a LayerError before the layer is known: its message follows
// "Layer 'x'" directly.
type problem struct {
	kind  Kind
	index int64 // -1: none
	text  string
}

func problemf(kind Kind, format string, values ...any) *problem {
	return &problem{kind: kind, index: -1, text: fmt.Sprintf(format, values...)}
}

func (p *problem) at(index int64) *problem {
	p.index = index
	return p
}

// layerError names the layer. The name is copied: it may be a view of Arrow
// memory that goes away before the error does.
func (p *problem) layerError(name string, row int64) *LayerError {
	name = strings.Clone(name)
	e := &LayerError{Name: &name, Row: row, Kind: p.kind, Message: fmt.Sprintf("Layer %s%s", quotedName(name), p.text)}
	if p.index >= 0 {
		index := p.index
		e.Index = &index
	} else if p.kind == KindNull {
		e.Message += fmt.Sprintf(" in row %d", row)
	}
	return e
}

const longestName = 100 // runes of a name in a message

// quotedName shows a name of a file in one line that is not too long, and
// without what a terminal would act on.
func quotedName(name string) string {
	end := "'"
	runes := 0
	for position := range name {
		if runes == longestName {
			name, end = name[:position], "..."
			break
		}
		runes++
	}
	shown := []byte{'\''}
	for _, r := range name {
		if strconv.IsPrint(r) {
			shown = utf8.AppendRune(shown, r)
		} else {
			quoted := strconv.QuoteRuneToASCII(r)
			shown = append(shown, quoted[1:len(quoted)-1]...)
		}
	}
	return string(shown) + end
}

// unnamedError is for a row whose layer_name cannot be read.
func (p *problem) unnamedError(row int64) *LayerError {
	return &LayerError{Row: row, Kind: p.kind, Message: fmt.Sprintf("Layer in row %d%s", row, p.text)}
}

// PanicError is a panic in a worker, turned into an error.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string { return fmt.Sprintf("internal error: %v", e.Value) }
