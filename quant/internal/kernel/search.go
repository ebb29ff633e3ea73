package kernel

import "math"

// The search for the least squared error of a group begins with the range of
// its weights, and with ranges cut at either end. For each, the codes that
// follow give the scale and the zero-point of least squared error for them, in
// closed form. The start that promises the least error is refined by doing the
// same a few times more: Lloyd's algorithm ("Least squares quantization in
// PCM", 1982) with evenly spaced levels. What is kept is the best scale and
// zero-point that was seen, the first start being round-to-nearest itself.
//
// All sums are of steps: v = w/scale + zero_point before rounding, the code q
// and the rest r = v - q, so that nothing overflows whatever the weights are.
const (
	cuts        = 4 // at either end; for a symmetric zero-point cuts*cuts/2 of either sign
	starts      = cuts * cuts
	refinements = 4
	// leastGain is what another choice has to gain over round-to-nearest: more
	// than rounding may have hidden in the sums.
	leastGain = 0x1p-10
	// hiddenRest bounds what rounding hides of each rest, and of what it decodes
	// to, as a part of the steps from 0: two choices, each of up to 5 roundings.
	hiddenRest = 10 * 0x1p-24
	// maxOffset bounds the zero-point: with larger ones, of groups far from 0, a
	// float32 has too few bits left for steps.
	maxOffset = 0x1p14
)

// widestCut is the widest cut by bit width, as a part of the distance from the
// middle of the range, or from 0, to its end. Few codes gain by leaving out
// much; found by trying on normal, Student-t and uniform weights.
var widestCut = [...]float32{2: 0.6, 3: 0.36, 4: 0.2, 5: 0.12, 6: 0.07, 8: 0.04}

// searchable tells whether there is anything to search in a group with this
// range and these parameters of round-to-nearest.
func searchable(lo, hi float32, p Parameters, f Format) bool {
	lo, hi = span(lo, hi, f.ZeroPoint)
	return !p.extreme && lo != hi && abs(p.ZeroPoint) <= maxOffset
}

// cut is what a start takes off the ends of a range, start 0 nothing. For an
// integer or symmetric zero-point it is what is left instead.
type cut struct{ lower, upper float32 }

func cutOf(start int, f Format) cut {
	widest := widestCut[f.BitWidth]
	if f.ZeroPoint == SymmetricZero {
		left := 1 - float32(widest*float32(start/2))/(starts/2-1)
		if start%2 == 1 {
			left = -left
		}
		return cut{left, left}
	}
	c := cut{float32(widest*float32(start/cuts)) / (cuts - 1), float32(widest*float32(start%cuts)) / (cuts - 1)}
	if f.ZeroPoint == IntegerZero {
		return cut{1 - c.lower, 1 - c.upper}
	}
	return c
}

// of gives the cut range, of which fit makes scale and zero-point.
func (c cut) of(lo, hi float32, zero ZeroPoint) (float32, float32) {
	switch zero {
	case FloatZero:
		half := float32(hi-lo) * 0.5
		return lo + float32(c.lower*half), hi - float32(c.upper*half)
	case SymmetricZero:
		m := lo + hi // one of them is 0
		return m * c.lower, m * c.upper
	default:
		return lo * c.lower, hi * c.upper
	}
}

// fitStart makes the parameters of a start, or repeats those of
// round-to-nearest where that fails.
func fitStart(start int, lo, hi float32, rtn Parameters, f Format) Parameters {
	lo, hi = cutOf(start, f).of(lo, hi, f.ZeroPoint)
	p, ok := fit(lo, hi, f)
	if !ok || p.extreme {
		return rtn
	}
	return p
}

// stepSums are sums over the weights of a group, each weighted by importance.
// Assembly relies on their order.
type stepSums struct {
	code, codeCode, rest, restCode, restRest, weight float32
}

// add counts a tile.
func (s *stepSums) add(tile, importance []float32, p Parameters, maxCode float32) {
	var t stepSums
	for i, w := range tile {
		v := float32(w*p.inverse) + p.ZeroPoint
		q := round(v, maxCode)
		r := v - q
		weightedCode, weightedRest := q, r
		if importance != nil {
			h := importance[i]
			weightedCode, weightedRest = float32(h*q), float32(h*r)
			t.weight += h
		}
		t.code += weightedCode
		t.codeCode += float32(weightedCode * q)
		t.rest += weightedRest
		t.restCode += float32(weightedRest * q)
		t.restRest += float32(weightedRest * r)
	}
	s.code += t.code
	s.codeCode += t.codeCode
	s.rest += t.rest
	s.restCode += t.restCode
	s.restRest += t.restRest
	s.weight += t.weight
}

// refine gives the parameters of least squared error for the codes that p has
// given, and the error that they promise, in squares of p's scale. It is NaN or
// Inf if there are none.
func (s *stepSums) refine(p Parameters, f Format) (Parameters, float32) {
	next, promise, slope := p, float32(0), float32(0)
	if f.ZeroPoint != SymmetricZero {
		// r = slope*q + offset
		if d := float32(s.weight*s.codeCode) - float32(s.code*s.code); d > 0 {
			slope = (float32(s.weight*s.restCode) - float32(s.code*s.rest)) / d
		}
		offset := (s.rest - float32(slope*s.code)) / s.weight
		promise = s.restRest - float32(slope*s.restCode) - float32(offset*s.rest)
		next.ZeroPoint = (p.ZeroPoint - offset) / (1 + slope)
	}
	if f.ZeroPoint != FloatZero {
		if f.ZeroPoint == IntegerZero {
			next.ZeroPoint = round(next.ZeroPoint, float32(f.MaxCode()))
		}
		// r + moved = slope*(q - zero_point)
		moved := next.ZeroPoint - p.ZeroPoint
		step := s.code - float32(s.weight*next.ZeroPoint)
		stepStep := s.codeCode - float32(next.ZeroPoint*(s.code+step))
		restStep := s.restCode - float32(next.ZeroPoint*s.rest) + float32(moved*step)
		restRest := s.restRest + float32(moved*(s.rest+(s.rest+float32(s.weight*moved))))
		slope = 0
		if stepStep > 0 {
			slope = restStep / stepStep
		}
		promise = restRest - float32(slope*restStep)
	}
	next.Scale = roundScale(p.Scale*(1+slope), f.ScaleDtype)
	next.inverse = 1 / next.Scale
	if f.ZeroPoint == FloatZero {
		// The best for the rounded scale.
		mean := (s.rest+s.code)/s.weight - p.ZeroPoint
		next.ZeroPoint = s.code/s.weight - float32(float32(p.Scale*next.inverse)*mean) + 0
	}
	plain := abs(next.Scale) >= minPlainScale && abs(next.Scale) <= maxPlainScale
	if !plain || !(1+slope > 0) || !(abs(next.ZeroPoint) <= maxOffset) {
		promise = infinity
	}
	return next, promise
}

// toBeat is the error that another choice has to stay below to be better than
// round-to-nearest beyond doubt, given the latter's own.
func toBeat(restRest, weight float32, rtn Parameters, maxCode float32) float32 {
	hidden := float32(hiddenRest * (abs(rtn.ZeroPoint) + maxCode))
	root := float32(math.Sqrt(float64(restRest/weight))) - hidden
	if !(root > 0) { // or NaN, if nothing has weight
		return 0
	}
	square := float32(float32(root*root) * weight)
	return square - float32(square*leastGain)
}

// search finds parameters of less squared error than those of
// round-to-nearest, or gives them back. The group is searchable.
func (s *scratch) search(weights []byte, importance []float32, lo, hi float32, rtn Parameters, b *Block) Parameters {
	lo, hi = span(lo, hi, b.ZeroPoint)
	best, leastError := rtn, infinity
	// look gives what refine makes of p, and keeps p if it is the best so far.
	var weight float32
	look := func(p Parameters) (Parameters, float32) {
		var sums stepSums
		if importance == nil {
			sums.weight = float32(len(weights) / b.Type.Size())
		}
		s.tiles(weights, b.Type, func(first int, tile []float32) {
			var h []float32
			if importance != nil {
				h = importance[first:][:len(tile)]
			}
			sums.add(tile, h, p, float32(b.MaxCode()))
		})
		square := float32(p.Scale * rtn.inverse)
		square *= square
		if e := float32(square * sums.restRest); e < leastError {
			best, leastError = p, e
		}
		weight = sums.weight
		next, promise := sums.refine(p, b.Format)
		return next, promise * square
	}
	next, promise := rtn, infinity
	for start := range starts {
		if n, p := look(fitStart(start, lo, hi, rtn, b.Format)); p < promise {
			next, promise = n, p
		}
		if start == 0 {
			leastError = toBeat(leastError, weight, rtn, float32(b.MaxCode()))
		}
	}
	for range refinements {
		n, p := look(next)
		if !isFinite(p) {
			break
		}
		next = n
	}
	return best
}
