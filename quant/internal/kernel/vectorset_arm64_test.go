//go:build goexperiment.simd && go1.27

package kernel

import (
	"reflect"
	"testing"
)

func expectedKernels() []string { return []string{"scalar", "neon"} }

// TestSetIsComplete has the functions that CPUs with other instruction sets have.
func TestSetIsComplete(t *testing.T) {
	set := reflect.ValueOf(&neon).Elem()
	for i := range set.NumField() {
		checkFunctions(t, set.Type().Field(i).Name, set.Field(i))
	}
}

// checkFunctions looks at all functions of a field but those of what is no bit width, or not
// packed so, and of levels that are searched otherwise.
func checkFunctions(t *testing.T, name string, field reflect.Value) {
	switch field.Kind() {
	case reflect.Func:
		if field.IsNil() {
			t.Errorf("there is no %s", name)
		}
	case reflect.Array:
		for i := range field.Len() {
			noWidth := (name == "pack" || name == "unpack") && i < 2 || name == "packWide" && i != 2 && i != 4
			noKind := (name == "scaleSearch" || name == "trialErrors") && gridKind(i) == evenKind
			if !noWidth && !noKind {
				checkFunctions(t, name, field.Index(i))
			}
		}
	}
}
