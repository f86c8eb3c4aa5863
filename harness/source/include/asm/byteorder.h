/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
#if __has_include(<linux/byteorder/little_endian.h>)
#include <linux/byteorder/little_endian.h>
#endif
