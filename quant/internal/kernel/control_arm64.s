#include "textflag.h"

// func readControl() (value uint64)
TEXT ·readControl(SB), NOSPLIT, $0-8
	MRS	FPCR, R0
	MOVD	R0, value+0(FP)
	RET

// func writeControl(value uint64)
TEXT ·writeControl(SB), NOSPLIT, $0-8
	MOVD	value+0(FP), R0
	MSR	R0, FPCR
	RET
