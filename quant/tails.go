package quant

import (
	"context"
	"slices"

	"github.com/pyarrowquant/pyarrowquant/quant/internal/kernel"
)

// Where nothing is known of the inputs of a layer, its weights tell a little: a column whose
// weights have heavier tails than those of others reads larger inputs, as a rule. That was so in
// most kinds of layers of the models that were tried, and in none the other way round. So method
// "mse" weighs columns by that, and is nearer to the model's output. With evenly spaced codes,
// columns whose weights are larger than those beside them weigh more, too: a search cuts them off
// for the sake of all others, and where a few are several times as large, their inputs are as well.
// Models in other encodings came no nearer by it.
const (
	// leastTailRows is by how many rows columns are judged at least: fewer say more of chance.
	leastTailRows = 64
	// tailColumns are those that a worker takes at a time.
	tailColumns = 1024
	// tailBits is how many bits codes have at most: those of 8 are so near to all weights that
	// models came no nearer.
	tailBits = 6
	// leastTail is the least weight of a column beside others that are fitted with it: a guess
	// must not leave out any.
	leastTail = 1.0 / 256
	// largeColumn is how large the weights of a column are, beside the mean of those fitted with it,
	// before that counts. With less some models came nearer, and others did not.
	largeColumn = 1.5
)

// weighsTails tells whether the tails of a layer's weights are its importance.
func (l *layer) weighsTails() bool {
	f := &l.settings.format
	return f.Method == kernel.MeanSquares && f.BitWidth <= tailBits && l.importance == nil && l.matrices().rows >= leastTailRows
}

// matrices is one of the matrices that a layer is a stack of, if groups do not cross their
// rows, or the whole of it.
func (l *layer) matrices() matrix {
	last := len(l.shape) - 1
	if last >= 2 && l.elements() > 0 && l.shape[last]%int64(l.together()) == 0 {
		return matrix{rows: int(l.shape[last-1]), columns: int(l.shape[last])}
	}
	return l.matrix
}

// weighTails gives such layers their importance.
func (q *quantization) weighTails(ctx context.Context, k *kernel.Kernel) error {
	if !slices.ContainsFunc(q.options.used(), func(s Settings) bool { return s.Method == MeanSquares }) {
		return nil
	}
	var stripes tasks
	magnitudes := make([][]float64, len(q.layers)) // of the columns of layers with evenly spaced codes, added up
	for i := range q.layers {
		l := &q.layers[i]
		if !l.weighsTails() {
			continue
		}
		each := l.matrices()
		l.importance = &importance{
			values: make([]float32, l.elements()/each.rows),
			stack:  kernel.Stack{Columns: each.columns, Elements: each.elements()},
		}
		if l.settings.encoding == nil {
			magnitudes[i] = make([]float64, len(l.importance.values))
		}
		for first := 0; first < len(l.importance.values); first += each.columns {
			for column := 0; column < each.columns; column += tailColumns {
				stripes.add(unit{layer: i, column: first + column, columns: min(tailColumns, each.columns-column)})
			}
		}
	}
	err := stripes.run(ctx, q.options.Threads, func() worker {
		tails := k.NewTails()
		return func(_ int, u *unit) { q.layers[u.layer].weighStripe(u, tails, magnitudes[u.layer]) }
	})
	for i, t := range stripes {
		if i == 0 || stripes[i-1].layer != t.layer {
			q.layers[t.layer].compareTails(magnitudes[t.layer])
		}
	}
	return err
}

// weighStripe weighs some columns, which are counted through all matrices of the stack.
func (l *layer) weighStripe(u *unit, tails *kernel.Tails, magnitudes []float64) {
	stack := l.importance.stack
	size, rows := l.element.Size(), stack.Elements/stack.Columns
	first := u.column/stack.Columns*stack.Elements + u.column%stack.Columns
	tails.Reset(u.columns, l.element)
	// All rows count: what an output hangs on may be a single weight.
	for row := range rows {
		from := first + row*stack.Columns
		tails.Add(l.weights[from*size:][:u.columns*size])
	}
	tails.End()
	for i := range u.columns {
		l.importance.values[u.column+i] = float32(tails.Weight(i))
		if magnitudes != nil {
			magnitudes[u.column+i] = tails.Magnitude(i)
		}
	}
}

// compareTails makes the weights of columns that are fitted together parts of the largest, after
// those of large columns were made larger where magnitudes are known.
func (l *layer) compareTails(magnitudes []float64) {
	for group := range slices.Chunk(l.importance.values, l.together()) {
		if magnitudes != nil {
			weighLargeColumns(group, magnitudes[:len(group)])
			magnitudes = magnitudes[len(group):]
		}
		largest := slices.Max(group)
		for i, weight := range group {
			group[i] = max(weight/largest, leastTail)
		}
	}
}

// weighLargeColumns multiplies the weights of large columns by the squares of how large they are.
func weighLargeColumns(weights []float32, magnitudes []float64) {
	var sum float64
	for _, magnitude := range magnitudes {
		sum += magnitude
	}
	mean := sum / float64(len(magnitudes))
	for i, magnitude := range magnitudes {
		// Of zeros, and of sums beyond float32, nothing is known.
		if ratio := magnitude / float64(largeColumn*mean); ratio > 1 {
			weights[i] = float32(float64(weights[i]) * float64(ratio*ratio))
		}
	}
}
