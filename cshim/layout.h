#ifndef PYARROWQUANT_LAYOUT_H
#define PYARROWQUANT_LAYOUT_H

#include <stdint.h>

/* A quantized layer, whose memory stays the caller's. */
struct paq_layer {
	int64_t rows;
	int64_t groups; /* a row */
	int64_t row_bytes; /* of codes */
	int64_t bit_width;
	const void *codes; /* rows * row_bytes */
	const float *scales; /* rows * groups */
	const float *zero_points; /* rows * groups */
	int64_t super_groups; /* a row; 0 where an encoding has none */
	const float *super_scales; /* rows * super_groups */
	const float *super_minimums; /* likewise, or NULL */
};

#endif
