/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Kernel functions of six to twelve arguments, which BPF programs of the project call.
 *
 * A BPF program sees them declared in .ksyms; a native build gets their bodies (kfuncs.c), and so
 * do the jit leg's emulator and the kernel module. The interpreter has models of its own in
 * Python. Every argument counts with a weight of its own, so that none can take another's place.
 *
 * Whoever includes this may define CROSSCHECK_KFUNC, what stands before each body; a kernel
 * module defines it as __bpf_kfunc.
 */
#ifndef CROSSCHECK_KFUNCS_H
#define CROSSCHECK_KFUNCS_H

typedef unsigned char cc_u8;
typedef signed char cc_s8;
typedef unsigned short cc_u16;
typedef short cc_s16;
typedef unsigned int cc_u32;
typedef int cc_s32;
typedef unsigned long long cc_u64;
typedef long long cc_s64;
typedef _Bool cc_bool;

struct crosscheck_pair {
	cc_u32 left;
	cc_s32 right;
	cc_u64 total;
};

struct crosscheck_two {
	cc_u64 low, high;
};

struct crosscheck_three {
	cc_u64 low, middle, high;
};

/* Their names, for a list of BTF ids. */
#define CROSSCHECK_KFUNCS(X) \
	X(crosscheck_kfunc_u64x6) \
	X(crosscheck_kfunc_u64x7) \
	X(crosscheck_kfunc_u64x8) \
	X(crosscheck_kfunc_u64x9) \
	X(crosscheck_kfunc_u64x10) \
	X(crosscheck_kfunc_u64x11) \
	X(crosscheck_kfunc_u64x12) \
	X(crosscheck_kfunc_u8x12) \
	X(crosscheck_kfunc_s8x12) \
	X(crosscheck_kfunc_u16x12) \
	X(crosscheck_kfunc_s16x12) \
	X(crosscheck_kfunc_u32x12) \
	X(crosscheck_kfunc_s32x12) \
	X(crosscheck_kfunc_boolx12) \
	X(crosscheck_kfunc_mixed12) \
	X(crosscheck_kfunc_mixed9) \
	X(crosscheck_kfunc_bool_of_6) \
	X(crosscheck_kfunc_u8_of_6) \
	X(crosscheck_kfunc_s8_of_6) \
	X(crosscheck_kfunc_u16_of_6) \
	X(crosscheck_kfunc_s16_of_6) \
	X(crosscheck_kfunc_u32_of_6) \
	X(crosscheck_kfunc_s32_of_6) \
	X(crosscheck_kfunc_s64_of_6) \
	X(crosscheck_kfunc_pointers9) \
	X(crosscheck_kfunc_swap8) \
	X(crosscheck_kfunc_memory6) \
	X(crosscheck_kfunc_memory9) \
	X(crosscheck_kfunc_fill8) \
	X(crosscheck_kfunc_string7) \
	X(crosscheck_kfunc_nullable7) \
	X(crosscheck_kfunc_struct6) \
	X(crosscheck_kfunc_large6) \
	X(crosscheck_kfunc_args13)

#if defined(__bpf__) && !defined(CROSSCHECK_KFUNC_BODIES)
#define CROSSCHECK_KSYM extern __attribute__((section(".ksyms")))
#else
#define CROSSCHECK_KSYM
#endif

/* Scalars: of one width, mixed, and every width as the result. */
CROSSCHECK_KSYM cc_u64 crosscheck_kfunc_u64x6(
		cc_u64 a, cc_u64 b, cc_u64 c, cc_u64 d, cc_u64 e, cc_u64 f);

CROSSCHECK_KSYM cc_u64 crosscheck_kfunc_u64x7(
		cc_u64 a, cc_u64 b, cc_u64 c, cc_u64 d, cc_u64 e, cc_u64 f, cc_u64 g);

CROSSCHECK_KSYM cc_u64 crosscheck_kfunc_u64x8(
		cc_u64 a, cc_u64 b, cc_u64 c, cc_u64 d, cc_u64 e, cc_u64 f, cc_u64 g, cc_u64 h);

CROSSCHECK_KSYM cc_u64 crosscheck_kfunc_u64x9(
		cc_u64 a, cc_u64 b, cc_u64 c, cc_u64 d, cc_u64 e, cc_u64 f, cc_u64 g, cc_u64 h,
		cc_u64 i);

CROSSCHECK_KSYM cc_u64 crosscheck_kfunc_u64x10(
		cc_u64 a, cc_u64 b, cc_u64 c, cc_u64 d, cc_u64 e, cc_u64 f, cc_u64 g, cc_u64 h,
		cc_u64 i, cc_u64 j);

CROSSCHECK_KSYM cc_u64 crosscheck_kfunc_u64x11(
		cc_u64 a, cc_u64 b, cc_u64 c, cc_u64 d, cc_u64 e, cc_u64 f, cc_u64 g, cc_u64 h,
		cc_u64 i, cc_u64 j, cc_u64 k);

CROSSCHECK_KSYM cc_u64 crosscheck_kfunc_u64x12(
		cc_u64 a, cc_u64 b, cc_u64 c, cc_u64 d, cc_u64 e, cc_u64 f, cc_u64 g, cc_u64 h,
		cc_u64 i, cc_u64 j, cc_u64 k, cc_u64 l);

CROSSCHECK_KSYM cc_u64 crosscheck_kfunc_u8x12(
		cc_u8 a, cc_u8 b, cc_u8 c, cc_u8 d, cc_u8 e, cc_u8 f, cc_u8 g, cc_u8 h, cc_u8 i,
		cc_u8 j, cc_u8 k, cc_u8 l);

CROSSCHECK_KSYM cc_u64 crosscheck_kfunc_s8x12(
		cc_s8 a, cc_s8 b, cc_s8 c, cc_s8 d, cc_s8 e, cc_s8 f, cc_s8 g, cc_s8 h, cc_s8 i,
		cc_s8 j, cc_s8 k, cc_s8 l);

CROSSCHECK_KSYM cc_u64 crosscheck_kfunc_u16x12(
		cc_u16 a, cc_u16 b, cc_u16 c, cc_u16 d, cc_u16 e, cc_u16 f, cc_u16 g, cc_u16 h,
		cc_u16 i, cc_u16 j, cc_u16 k, cc_u16 l);

CROSSCHECK_KSYM cc_u64 crosscheck_kfunc_s16x12(
		cc_s16 a, cc_s16 b, cc_s16 c, cc_s16 d, cc_s16 e, cc_s16 f, cc_s16 g, cc_s16 h,
		cc_s16 i, cc_s16 j, cc_s16 k, cc_s16 l);

CROSSCHECK_KSYM cc_u64 crosscheck_kfunc_u32x12(
		cc_u32 a, cc_u32 b, cc_u32 c, cc_u32 d, cc_u32 e, cc_u32 f, cc_u32 g, cc_u32 h,
		cc_u32 i, cc_u32 j, cc_u32 k, cc_u32 l);

CROSSCHECK_KSYM cc_u64 crosscheck_kfunc_s32x12(
		cc_s32 a, cc_s32 b, cc_s32 c, cc_s32 d, cc_s32 e, cc_s32 f, cc_s32 g, cc_s32 h,
		cc_s32 i, cc_s32 j, cc_s32 k, cc_s32 l);

CROSSCHECK_KSYM cc_u64 crosscheck_kfunc_boolx12(
		cc_bool a, cc_bool b, cc_bool c, cc_bool d, cc_bool e, cc_bool f, cc_bool g,
		cc_bool h, cc_bool i, cc_bool j, cc_bool k, cc_bool l);

CROSSCHECK_KSYM cc_u64 crosscheck_kfunc_mixed12(
		cc_u8 a, cc_s8 b, cc_u16 c, cc_s16 d, cc_u32 e, cc_s32 f, cc_u64 g, cc_s64 h,
		cc_bool i, cc_s8 j, cc_u16 k, cc_s32 l);

CROSSCHECK_KSYM cc_u64 crosscheck_kfunc_mixed9(
		cc_s64 a, cc_bool b, cc_s32 c, cc_u8 d, cc_u16 e, cc_s8 f, cc_u32 g, cc_s16 h,
		cc_u64 i);

CROSSCHECK_KSYM cc_bool crosscheck_kfunc_bool_of_6(
		cc_u64 a, cc_u64 b, cc_u64 c, cc_u64 d, cc_u64 e, cc_u64 f);

CROSSCHECK_KSYM cc_u8 crosscheck_kfunc_u8_of_6(
		cc_u64 a, cc_u64 b, cc_u64 c, cc_u64 d, cc_u64 e, cc_u64 f);

CROSSCHECK_KSYM cc_s8 crosscheck_kfunc_s8_of_6(
		cc_u64 a, cc_u64 b, cc_u64 c, cc_u64 d, cc_u64 e, cc_u64 f);

CROSSCHECK_KSYM cc_u16 crosscheck_kfunc_u16_of_6(
		cc_u64 a, cc_u64 b, cc_u64 c, cc_u64 d, cc_u64 e, cc_u64 f);

CROSSCHECK_KSYM cc_s16 crosscheck_kfunc_s16_of_6(
		cc_u64 a, cc_u64 b, cc_u64 c, cc_u64 d, cc_u64 e, cc_u64 f);

CROSSCHECK_KSYM cc_u32 crosscheck_kfunc_u32_of_6(
		cc_u64 a, cc_u64 b, cc_u64 c, cc_u64 d, cc_u64 e, cc_u64 f);

CROSSCHECK_KSYM cc_s32 crosscheck_kfunc_s32_of_6(
		cc_u64 a, cc_u64 b, cc_u64 c, cc_u64 d, cc_u64 e, cc_u64 f);

CROSSCHECK_KSYM cc_s64 crosscheck_kfunc_s64_of_6(
		cc_u64 a, cc_u64 b, cc_u64 c, cc_u64 d, cc_u64 e, cc_u64 f);

/* Pointers: in a register, in r9 (slot 1) and on the stack. */
CROSSCHECK_KSYM cc_u64 crosscheck_kfunc_pointers9(
		cc_u64 a, cc_u32 *b, cc_u64 c, cc_u64 d, cc_u64 e, struct crosscheck_pair *f, cc_u64 g,
		cc_u64 *h, cc_s16 i);

CROSSCHECK_KSYM void crosscheck_kfunc_swap8(
		cc_u64 a, cc_u64 b, cc_u64 c, cc_u64 d, cc_u64 e, cc_u64 f, struct crosscheck_pair *g,
		struct crosscheck_pair *h);

/* Memory with its size: size in r9, both on the stack, and written to. */
CROSSCHECK_KSYM cc_u64 crosscheck_kfunc_memory6(
		cc_u64 a, cc_u64 b, cc_u64 c, cc_u64 d, void *memory, cc_u32 memory__sz);

CROSSCHECK_KSYM cc_u64 crosscheck_kfunc_memory9(
		cc_u64 a, cc_u64 b, cc_u64 c, cc_u64 d, cc_u64 e, cc_u64 f, void *memory,
		cc_u32 memory__sz, cc_u64 i);

CROSSCHECK_KSYM cc_s32 crosscheck_kfunc_fill8(
		cc_u64 a, cc_u64 b, cc_u64 c, cc_u64 d, cc_u64 e, void *memory, cc_u64 memory__sz,
		cc_u8 value);

/* A string constant, behind the registers. */
CROSSCHECK_KSYM cc_u64 crosscheck_kfunc_string7(
		cc_u64 a, cc_u64 b, cc_u64 c, cc_u64 d, cc_u64 e, const char *text__str, cc_u32 limit);

/* A pointer that may be null. */
CROSSCHECK_KSYM cc_u64 crosscheck_kfunc_nullable7(
		cc_u64 a, cc_u64 b, cc_u64 c, cc_u64 d, cc_u64 e, cc_u64 *f__nullable, cc_u64 g);

/*
 * No program may call these: a struct by value, one that is too large besides, and one argument
 * more than twelve.
 */
CROSSCHECK_KSYM cc_u64 crosscheck_kfunc_struct6(
		cc_u64 a, cc_u64 b, cc_u64 c, cc_u64 d, cc_u64 e, struct crosscheck_two f);

CROSSCHECK_KSYM cc_u64 crosscheck_kfunc_large6(
		cc_u64 a, cc_u64 b, cc_u64 c, cc_u64 d, cc_u64 e, struct crosscheck_three f);

CROSSCHECK_KSYM cc_u64 crosscheck_kfunc_args13(
		cc_u64 a, cc_u64 b, cc_u64 c, cc_u64 d, cc_u64 e, cc_u64 f, cc_u64 g, cc_u64 h,
		cc_u64 i, cc_u64 j, cc_u64 k, cc_u64 l, cc_u64 m);

#undef CROSSCHECK_KSYM

#if !defined(__bpf__) && !defined(CROSSCHECK_KFUNC)
#include "kfuncs.c"
#endif

#endif
