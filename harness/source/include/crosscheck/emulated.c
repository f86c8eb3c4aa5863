/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* The helpers of the jit leg's kernel, as one translation unit. */
#define CROSSCHECK_EMULATED
#include "helpers.c"
