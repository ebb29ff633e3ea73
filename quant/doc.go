// Package quant quantizes layers of weights that lie in Arrow memory, and
// decodes them again. It knows nothing of C or Python: callers pass record
// batches, an allocator and a context.
//
// Data flows one way: read (schema.go, columns.go, rows.go, weights.go,
// quantized.go), plan (plan.go), run (pool.go and the kernels), build the result
// (parts.go, outputcolumns.go, output.go).
//
// # Numbers
//
// A layer of shape (d0, d1, ...) is a row-major matrix of N = d0 rows and
// K = d1*d2*... columns; with fewer than two dimensions it is one row. A group
// is group_size consecutive columns of one row; the last group of a row may be
// shorter. A group has a scale s and a zero-point z, both float32; a code q of
// bit_width b bits decodes to (q - z) * s, computed in float32.
//
// # Bytes
//
// A row is a little-endian bit stream of its codes, zero-padded to a byte:
// quantized_data has N * ceil(K*b/8) bytes, scales and zero_points have
// N * ceil(K/group_size) values, row-major.
package quant
