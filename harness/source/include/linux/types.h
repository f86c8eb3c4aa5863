/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* The names of the kernel's integer types, where no kernel headers are installed. */
#ifndef CROSSCHECK_LINUX_TYPES_H
#define CROSSCHECK_LINUX_TYPES_H

#include <asm/types.h>

typedef __u16 __le16, __be16, __sum16;
typedef __u32 __le32, __be32, __wsum;
typedef __u64 __le64, __be64;

#endif
