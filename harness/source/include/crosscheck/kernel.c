/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* All that BPF programs of the project call in the kernel, as one translation unit. */
#include "kfuncs.c"
