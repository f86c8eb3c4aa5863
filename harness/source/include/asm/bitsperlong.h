/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
#ifndef __BITS_PER_LONG
#define __BITS_PER_LONG 64
#endif
#if __has_include(<asm-generic/bitsperlong.h>)
#include <asm-generic/bitsperlong.h>
#endif
