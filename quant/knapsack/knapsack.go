// Package knapsack shares a budget of bits among layers: the multiple-choice
// knapsack problem.
package knapsack

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
)

// ErrBudget: even the smallest choices are over the budget.
var ErrBudget = errors.New("invalid budget")

// Cost is what one of the choices for a layer takes and leaves.
type Cost struct {
	Bits  int64   `json:"bits"`
	Error float64 `json:"error"` // finite; what it measures is the caller's choice
}

// maxStates bounds the partial choices that Choose keeps a layer. Bounds leave
// far fewer on real models; where they do not, the result may be worse than the
// best by less than one layer's share.
const maxStates = 5000

// Choose picks one of the costs of each layer, of which each has at least one, so
// that the sum of errors is the least that the budget of bits allows. It gives their
// positions, or an error that wraps ErrBudget.
//
// A greedy solution along the convex hulls of all layers gives a price for a bit
// (Sinha and Zoltners, "The multiple-choice knapsack problem", 1979); with it, every
// partial choice has a lower bound, and those that cannot beat the best solution
// known are dropped.
func Choose(layers [][]Cost, budget int64) ([]int, error) {
	p := problem{layers: make([][]option, len(layers)), budget: budget}
	for i, costs := range layers {
		p.layers[i] = efficient(costs)
	}
	least := p.smallest()
	if bits := p.bits(least); bits > budget {
		return nil, budgetError{budget, bits}
	}
	best, price := p.greedy(least)
	best = p.improve(best, price)
	choices := make([]int, len(layers))
	for i, k := range best {
		choices[i] = p.layers[i][k].choice
	}
	return choices, nil
}

// budgetError says by how much a budget is too small, in bits.
type budgetError struct{ budget, least int64 }

func (e budgetError) Error() string {
	return fmt.Sprintf("Invalid budget: %d bits. The smallest choices take %d", e.budget, e.least)
}

func (e budgetError) Unwrap() error { return ErrBudget }

// option is a choice that no other choice of its layer beats in both ways.
type option struct {
	Cost
	choice int
}

// efficient gives options of rising bits and falling error.
func efficient(costs []Cost) (options []option) {
	for i, c := range costs {
		options = append(options, option{c, i})
	}
	return undominated(options, func(o option) Cost { return o.Cost })
}

// undominated sorts by rising bits, and keeps what has less error than all before.
func undominated[T any](items []T, cost func(T) Cost) []T {
	slices.SortStableFunc(items, func(x, y T) int {
		a, b := cost(x), cost(y)
		return cmp.Or(cmp.Compare(a.Bits, b.Bits), cmp.Compare(a.Error, b.Error))
	})
	kept := items[:0]
	for _, x := range items {
		if len(kept) == 0 || cost(x).Error < cost(kept[len(kept)-1]).Error {
			kept = append(kept, x)
		}
	}
	return kept
}

// problem is what is to be solved; a solution has the position of each layer's option.
type problem struct {
	layers [][]option
	budget int64
}

func (p *problem) smallest() []int { return make([]int, len(p.layers)) }

func (p *problem) bits(solution []int) (sum int64) {
	for i, k := range solution {
		sum += p.layers[i][k].Bits
	}
	return sum
}

func (p *problem) error(solution []int) (sum float64) {
	for i, k := range solution {
		sum += p.layers[i][k].Error
	}
	return sum
}

// upgrade moves a layer from one option of its convex hull to the next.
type upgrade struct {
	layer, to int
	gain      float64 // error less a bit
}

// greedy takes upgrades by falling gain, as long as they fit. The price of a bit
// is the gain of the first one that does not, or 0.
func (p *problem) greedy(solution []int) ([]int, float64) {
	var upgrades []upgrade
	for i, options := range p.layers {
		upgrades = append(upgrades, hull(i, options)...)
	}
	slices.SortStableFunc(upgrades, func(x, y upgrade) int { return cmp.Compare(y.gain, x.gain) })
	left, price, blocked := p.budget-p.bits(solution), 0.0, map[int]bool{}
	for _, u := range upgrades {
		more := p.layers[u.layer][u.to].Bits - p.layers[u.layer][solution[u.layer]].Bits
		switch {
		case blocked[u.layer]:
		case more > left:
			price = max(price, u.gain)
			blocked[u.layer] = true
		default:
			left -= more
			solution[u.layer] = u.to
		}
	}
	return solution, price
}

// hull gives the steps along the lower convex hull of a layer's options.
func hull(layer int, options []option) (steps []upgrade) {
	for at := 0; at < len(options)-1; {
		next := upgrade{layer: layer, gain: -1}
		for k := at + 1; k < len(options); k++ {
			gain := (options[at].Error - options[k].Error) / float64(options[k].Bits-options[at].Bits)
			if gain >= next.gain {
				next.to, next.gain = k, gain
			}
		}
		steps = append(steps, next)
		at = next.to
	}
	return steps
}

// state is a choice for the first layers.
type state struct {
	Cost
	previous int32 // state of the layers before
	option   int32
}

// improve looks for a better solution than the one known. Bounds: what is left
// costs at least as much as if bits were bought at the price.
func (p *problem) improve(known []int, price float64) []int {
	n := len(p.layers)
	restError, restBits := make([]float64, n+1), make([]int64, n+1)
	for i := n - 1; i >= 0; i-- {
		least := p.layers[i][0].Error + float64(price*float64(p.layers[i][0].Bits))
		for _, o := range p.layers[i] {
			least = min(least, o.Error+float64(price*float64(o.Bits)))
		}
		restError[i], restBits[i] = restError[i+1]+least, restBits[i+1]+p.layers[i][0].Bits
	}
	limit := p.error(known)
	bound := func(s state, done int) float64 {
		return s.Error + restError[done] - float64(price*float64(p.budget-s.Bits))
	}
	levels := make([][]state, n+1)
	levels[0] = []state{{}}
	for i, options := range p.layers {
		var next []state
		for previous, s := range levels[i] {
			for k, o := range options {
				t := state{Cost{s.Bits + o.Bits, s.Error + o.Error}, int32(previous), int32(k)}
				if t.Bits+restBits[i+1] <= p.budget && bound(t, i+1) < limit {
					next = append(next, t)
				}
			}
		}
		levels[i+1] = few(undominated(next, func(s state) Cost { return s.Cost }), func(s state) float64 { return bound(s, i+1) })
	}
	last := levels[n]
	if len(last) == 0 || last[len(last)-1].Error >= limit {
		return known
	}
	solution, at := make([]int, n), len(last)-1 // errors fall
	for i := n; i > 0; i-- {
		s := levels[i][at]
		solution[i-1], at = int(s.option), int(s.previous)
	}
	return solution
}

// few keeps of too many states those with the least bounds, in their order.
func few(states []state, bound func(state) float64) []state {
	if len(states) > maxStates {
		slices.SortStableFunc(states, func(a, b state) int { return cmp.Compare(bound(a), bound(b)) })
		states = states[:maxStates]
		slices.SortFunc(states, func(a, b state) int { return cmp.Compare(a.Bits, b.Bits) })
	}
	return slices.Clone(states)
}
