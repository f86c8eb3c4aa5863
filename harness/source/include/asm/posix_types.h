/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
#if __has_include(<asm-generic/posix_types.h>)
#include <asm-generic/posix_types.h>
#endif
