//go:build go1.27

package kernel

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// loopsOfNEON are the functions whose loops go over weights. All that they need stays in
// registers.
var loopsOfNEON = []string{
	"rangesFloat32NEON", "rangesShort", "codeNEON", "sumsNEON", "addTailsNEON", "decodeNEON", "(*packing).pack", "(*packing).unpack",
	"pack2NEON", "pack4NEON", "splitHalvesNEON", "transposeNEON", "rowSumsNEON", "stepSumsNEON", "stepSumsWeightedNEON", "hqqSumsNEON", "normalizeNEON",
	"tableSums", "floatSums", "groupMoments", "groupSums", "tableErrors", "floatErrors", "groupErrors",
	"(*gridVectors).evenCodes", "(*gridVectors).tableCodes", "(*gridVectors).floatCodes", "decodedSumsNEON", "normalizeEndsNEON", "levelScalesNEON", "decodeLevelsNEON", "decodeE4M3NEON",
	"areE4M3NEON", "areFactorsNEON", "areMinimumsNEON", "refineNEON",
	"minimumScalesNEON", "factorScalesNEON", "multiplesNEON", "unitPartsNEON", "powerScalesNEON", "groupCodersNEON",
}

// aroundLoops are those whose loops go over groups, or over a few trials of one.
var aroundLoops = []string{
	"rangesFloat16NEON", "rangesBFloat16NEON", "fitNEON", "encodeNEON", "trialErrorsNEON",
	"levelSearchNEON", "scaleSearchNEON", "groupScalesNEON", "factorSearchNEON", "unitCostsNEON",
}

// fusing are those that round products and sums at once on purpose, as searches of encodings do.
var fusing = []string{"pair.mulAdd", "(*pair).mulAdd", "tableSums", "floatSums", "groupSums", "tableErrors", "floatErrors", "groupErrors"}

// What listings have where the compiler stores a vector for want of registers, checks bounds,
// or rounds a product and a sum at once. Calls are of what is not inlined, but for what comes
// before the loops or behind them. Vectors of variables of the package would be loaded in loops,
// again and again.
var (
	spilled = regexp.MustCompile(`\tFMOVQ\t.*\(SP\)`)
	loaded  = regexp.MustCompile(`\tFMOVQ\t.*\(SB\), F`)
	called  = regexp.MustCompile(`\tCALL\t`)
	outside = regexp.MustCompile(`runtime\.(morestack|panicunsafeslicelen|panicshift)|kernel\.(un)?pack\(SB\)`)
	fused   = regexp.MustCompile(`\tV?FN?M(ADD|SUB|LA|LS)[SD]?\t`)
)

// TestListingOfNEON looks at what the compiler makes of the NEON kernel, on any processor, and
// of all other arithmetic, which would round differently on arm64 if it were fused.
func TestListingOfNEON(t *testing.T) {
	listings := listingsOf(t, "linux", "arm64", ".", "../../knapsack", "../../layout", "../..")
	for name, listing := range listings {
		if found := fused.FindString(listing); found != "" && !slices.Contains(fusing, strings.TrimPrefix(name, "kernel.")) {
			t.Errorf("%s has the fused instruction %s", name, found)
		}
	}
	for name := range listings {
		name, ours := strings.CutPrefix(name, "kernel.")
		if ours && strings.HasSuffix(name, "NEON") && !slices.Contains(loopsOfNEON, name) && !slices.Contains(aroundLoops, name) {
			t.Errorf("%s is in no list", name)
		}
	}
	for _, name := range loopsOfNEON {
		listing, ok := listings["kernel."+name]
		if !ok {
			t.Errorf("there is no %s", name)
		}
		for line := range strings.Lines(listing) {
			if spilled.MatchString(line) || loaded.MatchString(line) || called.MatchString(line) && !outside.MatchString(line) {
				t.Errorf("%s has %s", name, line)
			}
		}
	}
}

// listingsOf has the instructions of all functions of packages, by their names.
func listingsOf(t *testing.T, system, processor string, packages ...string) map[string]string {
	for _, folder := range packages {
		watch(t, folder)
	}
	build := exec.Command("go", append([]string{"build", "-gcflags=-S"}, packages...)...)
	build.Env = append(os.Environ(), "GOOS="+system, "GOARCH="+processor, "CGO_ENABLED=0", "GOEXPERIMENT=simd")
	output, err := build.CombinedOutput()
	if err != nil {
		t.Fatalf("go build: %v\n%s", err, output)
	}
	listings, current := map[string]string{}, ""
	for line := range strings.Lines(string(output)) {
		if title := titleLine.FindStringSubmatch(line); title != nil {
			current = title[1]
		}
		listings[current] += line
	}
	return listings
}

// watch reads the sources of a package: go test takes the result of an earlier run unless a file
// has changed which the test has read, or which is of this processor.
func watch(t *testing.T, folder string) {
	sources, err := filepath.Glob(filepath.Join(folder, "*.go"))
	for _, source := range sources {
		if _, failed := os.ReadFile(source); failed != nil {
			err = failed
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

// titleLine begins a function's listing.
var titleLine = regexp.MustCompile(`^\S*/(\w+\.\S+) STEXT `)
