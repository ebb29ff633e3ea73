package quant

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/pyarrowquant/pyarrowquant/quant/internal/kernel"
)

// TestNamesDecode decodes each name of each option as options are decoded, and
// encodes it again.
func TestNamesDecode(t *testing.T) {
	for _, c := range []struct {
		options any
		key     string
		names   []string
		decoded func(options any) any
	}{
		{&Options{}, "method", []string{"rtn", "mse", "hqq"}, func(o any) any { return o.(*Options).Method }},
		{&Options{}, "zero_point", []string{"integer", "float", "symmetric"}, func(o any) any { return o.(*Options).ZeroPoint }},
		{&Options{}, "scale_dtype", []string{"float32", "float16", "bfloat16"}, func(o any) any { return o.(*Options).ScaleDtype }},
		{&DequantizeOptions{}, "dtype", []string{"float32", "float16"}, func(o any) any { return o.(*DequantizeOptions).Dtype }},
	} {
		for value, name := range c.names {
			if err := json.Unmarshal(fmt.Appendf(nil, `{"%s": "%s"}`, c.key, name), c.options); err != nil {
				t.Errorf("%s %s: %v", c.key, name, err)
				continue
			}
			decoded := c.decoded(c.options)
			encoded, err := json.Marshal(decoded)
			if fmt.Sprintf("%d", decoded) != fmt.Sprint(value) || fmt.Sprint(decoded) != name || string(encoded) != `"`+name+`"` || err != nil {
				t.Errorf("%s %s is %v, %d, %s", c.key, name, decoded, decoded, encoded)
			}
		}
	}
}

func TestWrongNamesAreArgumentErrors(t *testing.T) {
	names := []string{}
	for _, k := range kernel.All() {
		names = append(names, "'"+k.Name+"'")
	}
	kernels := "Invalid kernel of PYARROWQUANT_KERNEL: 'x'. Must be " + strings.Join(names, ", ")
	for _, c := range []struct {
		into any
		json string
		want string
	}{
		{&Options{}, `{"method": "awq"}`, "Invalid method: 'awq'. Must be 'rtn', 'mse', 'hqq'"},
		{&Options{}, `{"method": ""}`, "Invalid method: ''. Must be 'rtn', 'mse', 'hqq'"},
		{&Options{}, `{"zero_point": "RTN"}`, "Invalid zero_point: 'RTN'. Must be 'integer', 'float', 'symmetric'"},
		{&Options{}, `{"choices": [{}, {"scale_dtype": "float64"}]}`, "Invalid scale_dtype: 'float64'. Must be 'float32', 'float16', 'bfloat16'"},
		{&DequantizeOptions{}, `{"dtype": "bfloat16"}`, "Invalid dtype: 'bfloat16'. Must be 'float32', 'float16'"},
		{&Options{}, `{"kernel": "x"}`, kernels},
		{&DequantizeOptions{}, `{"kernel": "x"}`, kernels},
		{&CompareOptions{}, `{"kernel": "x"}`, kernels},
	} {
		err := json.Unmarshal([]byte(c.json), c.into)
		if !errors.Is(err, ErrArgument) || err.Error() != c.want {
			t.Errorf("%s: got %v, want %s", c.json, err, c.want)
		}
	}
}

// TestKernelsAreFoundByName has every kernel, and the fastest for no name.
func TestKernelsAreFoundByName(t *testing.T) {
	all := kernel.All()
	fastest := all[len(all)-1].Name
	if got := (Kernel{}).orFastest().Name; got != fastest {
		t.Errorf("the zero value is %s, want %s", got, fastest)
	}
	for _, k := range append(all, kernel.Kernel{}) {
		var o Options
		if err := json.Unmarshal(fmt.Appendf(nil, `{"kernel": "%s"}`, k.Name), &o); err != nil {
			t.Fatal(err)
		}
		want := k.Name
		if want == "" {
			want = fastest
		}
		if got := o.Kernel.orFastest().Name; got != want {
			t.Errorf("'%s' is %s, want %s", k.Name, got, want)
		}
		if encoded, err := json.Marshal(o.Kernel); err != nil || string(encoded) != `"`+want+`"` {
			t.Errorf("%s is encoded as %s, %v", want, encoded, err)
		}
	}
}
