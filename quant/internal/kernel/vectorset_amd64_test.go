package kernel

import (
	"fmt"
	"os"
	"reflect"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/cpu"
)

// expectedKernels are those of this CPU.
func expectedKernels() []string {
	names := []string{"scalar"}
	if cpu.X86.HasAVX2 {
		names = append(names, "avx2")
	}
	if cpu.X86.HasAVX512F {
		names = append(names, "avx512")
	}
	return names
}

// TestKernelsOfCPUs has the features of CPUs as their makers list them.
func TestKernelsOfCPUs(t *testing.T) {
	all := features{avx2: true, fma: true, bmi2: true, f16c: true, avx512: true}
	without := func(change func(f *features)) features {
		f := all
		change(&f)
		return f
	}
	withoutAVX512 := without(func(f *features) { f.avx512 = false })
	for name, c := range map[string]struct {
		features
		want []string
	}{
		"Sandy Bridge":             {features{}, nil},
		"Ivy Bridge":               {features{f16c: true}, nil},
		"Piledriver":               {features{f16c: true, fma: true}, nil},
		"Haswell":                  {withoutAVX512, []string{"avx2"}},
		"Zen 2":                    {withoutAVX512, []string{"avx2"}}, // see TestNothingIsMicrocode
		"Zen 3":                    {withoutAVX512, []string{"avx2"}},
		"Knights Landing":          {withoutAVX512, []string{"avx2"}}, // no BW
		"Skylake X":                {all, []string{"avx2", "avx512"}},
		"Zen 4":                    {all, []string{"avx2", "avx512"}},
		"no AVX2":                  {without(func(f *features) { f.avx2 = false }), nil},
		"no FMA":                   {without(func(f *features) { f.fma = false }), nil},
		"no BMI2":                  {without(func(f *features) { f.bmi2 = false }), nil},
		"no F16C":                  {without(func(f *features) { f.f16c = false }), nil},
		"no F16C, as emulators do": {features{avx2: true, fma: true, bmi2: true}, nil},
	} {
		var got []string
		for _, v := range c.features.sets() {
			got = append(got, v.name)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: kernels %v, want %v", name, got, c.want)
		}
	}
}

// TestF16CIsFound asks the system, which tells it where there is a list of flags.
func TestF16CIsFound(t *testing.T) {
	flags, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return // TestVectorKernelsRun has seen whether it was found
	}
	if want := regexp.MustCompile(`(?m)^flags\b.*\bf16c\b`).Match(flags); present.f16c != want {
		t.Errorf("F16C is found: %v, the system says %v", present.f16c, want)
	}
}

// TestNothingIsMicrocode: Zen 1 and 2 take some hundred cycles for PEXT and PDEP, so
// that no loop may have them.
func TestNothingIsMicrocode(t *testing.T) {
	source, err := os.ReadFile("vector_amd64.s")
	if err != nil {
		t.Fatal(err)
	}
	if found := regexp.MustCompile(`\bP(EXT|DEP)[LQ]\b`).Find(source); found != nil {
		t.Errorf("vector_amd64.s has %s", found)
	}
}

// TestSetsAreComplete looks at the sets of all CPUs: what this one cannot run would
// otherwise be missed only where it runs. A function is named after its place, and
// after the instruction set or none.
func TestSetsAreComplete(t *testing.T) {
	elements := []string{"Float32", "Float16", "BFloat16"}
	zeros := []string{"Integer", "Float", "Symmetric"}
	kinds, weighted := []string{"Even", "Table", "Float"}, []string{"", "Weighted"}
	for suffix, v := range map[string]*vectorSet{"AVX2": &avx2, "AVX512": &avx512} {
		set := reflect.ValueOf(v).Elem()
		check := func(function reflect.Value, want string) {
			if function.IsNil() {
				t.Errorf("%s has no %s", v.name, want)
				return
			}
			full := runtime.FuncForPC(function.Pointer()).Name()
			if got := full[strings.LastIndexByte(full, '.')+1:]; got != want && got != want+suffix {
				t.Errorf("%s has %s as %s", v.name, got, want)
			}
		}
		for i := range set.NumField() {
			name, field := set.Type().Field(i).Name, set.Field(i)
			switch {
			case name == "name" || name == "wideCodes":
			case name == "packWide":
				for _, width := range []int{2, 4} {
					check(field.Index(width), fmt.Sprintf("pack%d", width))
				}
			case name == "pack" || name == "unpack":
				for _, width := range []int{2, 3, 4, 5, 6} {
					check(field.Index(width), fmt.Sprintf("%s%d", name, width))
				}
			case field.Kind() == reflect.Func:
				check(field, name)
			case name == "factorSearch" || name == "levelSearch":
				for w, suffix := range weighted {
					check(field.Index(w), name+suffix)
				}
			case name == "layGroups" || name == "takeMoments" || name == "minimumSearch" || name == "groupFactorsMinimums":
				for k, groups := range []int{8, 16} {
					check(field.Index(k), fmt.Sprint(name, groups))
				}
			case name == "encode":
				for e, element := range elements {
					for k, kind := range kinds {
						check(field.Index(e).Index(k), name+kind+element)
					}
				}
			case name == "scaleSearch" || name == "trialErrors":
				for k := tableKind; k < gridKinds; k++ {
					for w, suffix := range weighted {
						check(field.Index(int(k)).Index(w), name+kinds[k]+suffix)
					}
				}
			case field.Type().Elem().Kind() == reflect.Func:
				for e, element := range elements {
					check(field.Index(e), name+element)
				}
			default:
				for z, zero := range zeros {
					for e, element := range elements {
						check(field.Index(z).Index(e), name+zero+element)
					}
				}
			}
		}
	}
}
