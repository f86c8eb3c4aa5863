/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* What the kernel functions of kfuncs.h do; the same text in every place that runs them. */
#ifndef CROSSCHECK_KFUNC
#define CROSSCHECK_KFUNC __attribute__((noinline))
#endif

#include "kfuncs.h"

#define W(x) ((cc_u64)(cc_s64)(x)) /* as 64 bits, by its own sign */

CROSSCHECK_KFUNC cc_u64 crosscheck_kfunc_u64x6(
		cc_u64 a, cc_u64 b, cc_u64 c, cc_u64 d, cc_u64 e, cc_u64 f)
{
	return a * 3 + b * 5 + c * 7 + d * 11 + e * 13 + f * 17;
}

CROSSCHECK_KFUNC cc_u64 crosscheck_kfunc_u64x7(
		cc_u64 a, cc_u64 b, cc_u64 c, cc_u64 d, cc_u64 e, cc_u64 f, cc_u64 g)
{
	return a * 3 + b * 5 + c * 7 + d * 11 + e * 13 + f * 17 + g * 19;
}

CROSSCHECK_KFUNC cc_u64 crosscheck_kfunc_u64x8(
		cc_u64 a, cc_u64 b, cc_u64 c, cc_u64 d, cc_u64 e, cc_u64 f, cc_u64 g, cc_u64 h)
{
	return a * 3 + b * 5 + c * 7 + d * 11 + e * 13 + f * 17 + g * 19 + h * 23;
}

CROSSCHECK_KFUNC cc_u64 crosscheck_kfunc_u64x9(
		cc_u64 a, cc_u64 b, cc_u64 c, cc_u64 d, cc_u64 e, cc_u64 f, cc_u64 g, cc_u64 h,
		cc_u64 i)
{
	return a * 3 + b * 5 + c * 7 + d * 11 + e * 13 + f * 17 + g * 19 + h * 23 + i * 29;
}

CROSSCHECK_KFUNC cc_u64 crosscheck_kfunc_u64x10(
		cc_u64 a, cc_u64 b, cc_u64 c, cc_u64 d, cc_u64 e, cc_u64 f, cc_u64 g, cc_u64 h,
		cc_u64 i, cc_u64 j)
{
	return a * 3 + b * 5 + c * 7 + d * 11 + e * 13 + f * 17 + g * 19 + h * 23 + i * 29
	       + j * 31;
}

CROSSCHECK_KFUNC cc_u64 crosscheck_kfunc_u64x11(
		cc_u64 a, cc_u64 b, cc_u64 c, cc_u64 d, cc_u64 e, cc_u64 f, cc_u64 g, cc_u64 h,
		cc_u64 i, cc_u64 j, cc_u64 k)
{
	return a * 3 + b * 5 + c * 7 + d * 11 + e * 13 + f * 17 + g * 19 + h * 23 + i * 29
	       + j * 31 + k * 37;
}

CROSSCHECK_KFUNC cc_u64 crosscheck_kfunc_u64x12(
		cc_u64 a, cc_u64 b, cc_u64 c, cc_u64 d, cc_u64 e, cc_u64 f, cc_u64 g, cc_u64 h,
		cc_u64 i, cc_u64 j, cc_u64 k, cc_u64 l)
{
	return a * 3 + b * 5 + c * 7 + d * 11 + e * 13 + f * 17 + g * 19 + h * 23 + i * 29
	       + j * 31 + k * 37 + l * 41;
}

CROSSCHECK_KFUNC cc_u64 crosscheck_kfunc_u8x12(
		cc_u8 a, cc_u8 b, cc_u8 c, cc_u8 d, cc_u8 e, cc_u8 f, cc_u8 g, cc_u8 h, cc_u8 i,
		cc_u8 j, cc_u8 k, cc_u8 l)
{
	return W(a) * 3 + W(b) * 5 + W(c) * 7 + W(d) * 11 + W(e) * 13 + W(f) * 17 + W(g) * 19
	       + W(h) * 23 + W(i) * 29 + W(j) * 31 + W(k) * 37 + W(l) * 41;
}

CROSSCHECK_KFUNC cc_u64 crosscheck_kfunc_s8x12(
		cc_s8 a, cc_s8 b, cc_s8 c, cc_s8 d, cc_s8 e, cc_s8 f, cc_s8 g, cc_s8 h, cc_s8 i,
		cc_s8 j, cc_s8 k, cc_s8 l)
{
	return W(a) * 3 + W(b) * 5 + W(c) * 7 + W(d) * 11 + W(e) * 13 + W(f) * 17 + W(g) * 19
	       + W(h) * 23 + W(i) * 29 + W(j) * 31 + W(k) * 37 + W(l) * 41;
}

CROSSCHECK_KFUNC cc_u64 crosscheck_kfunc_u16x12(
		cc_u16 a, cc_u16 b, cc_u16 c, cc_u16 d, cc_u16 e, cc_u16 f, cc_u16 g, cc_u16 h,
		cc_u16 i, cc_u16 j, cc_u16 k, cc_u16 l)
{
	return W(a) * 3 + W(b) * 5 + W(c) * 7 + W(d) * 11 + W(e) * 13 + W(f) * 17 + W(g) * 19
	       + W(h) * 23 + W(i) * 29 + W(j) * 31 + W(k) * 37 + W(l) * 41;
}

CROSSCHECK_KFUNC cc_u64 crosscheck_kfunc_s16x12(
		cc_s16 a, cc_s16 b, cc_s16 c, cc_s16 d, cc_s16 e, cc_s16 f, cc_s16 g, cc_s16 h,
		cc_s16 i, cc_s16 j, cc_s16 k, cc_s16 l)
{
	return W(a) * 3 + W(b) * 5 + W(c) * 7 + W(d) * 11 + W(e) * 13 + W(f) * 17 + W(g) * 19
	       + W(h) * 23 + W(i) * 29 + W(j) * 31 + W(k) * 37 + W(l) * 41;
}

CROSSCHECK_KFUNC cc_u64 crosscheck_kfunc_u32x12(
		cc_u32 a, cc_u32 b, cc_u32 c, cc_u32 d, cc_u32 e, cc_u32 f, cc_u32 g, cc_u32 h,
		cc_u32 i, cc_u32 j, cc_u32 k, cc_u32 l)
{
	return W(a) * 3 + W(b) * 5 + W(c) * 7 + W(d) * 11 + W(e) * 13 + W(f) * 17 + W(g) * 19
	       + W(h) * 23 + W(i) * 29 + W(j) * 31 + W(k) * 37 + W(l) * 41;
}

CROSSCHECK_KFUNC cc_u64 crosscheck_kfunc_s32x12(
		cc_s32 a, cc_s32 b, cc_s32 c, cc_s32 d, cc_s32 e, cc_s32 f, cc_s32 g, cc_s32 h,
		cc_s32 i, cc_s32 j, cc_s32 k, cc_s32 l)
{
	return W(a) * 3 + W(b) * 5 + W(c) * 7 + W(d) * 11 + W(e) * 13 + W(f) * 17 + W(g) * 19
	       + W(h) * 23 + W(i) * 29 + W(j) * 31 + W(k) * 37 + W(l) * 41;
}

CROSSCHECK_KFUNC cc_u64 crosscheck_kfunc_boolx12(
		cc_bool a, cc_bool b, cc_bool c, cc_bool d, cc_bool e, cc_bool f, cc_bool g,
		cc_bool h, cc_bool i, cc_bool j, cc_bool k, cc_bool l)
{
	return W(a) * 3 + W(b) * 5 + W(c) * 7 + W(d) * 11 + W(e) * 13 + W(f) * 17 + W(g) * 19
	       + W(h) * 23 + W(i) * 29 + W(j) * 31 + W(k) * 37 + W(l) * 41;
}

CROSSCHECK_KFUNC cc_u64 crosscheck_kfunc_mixed12(
		cc_u8 a, cc_s8 b, cc_u16 c, cc_s16 d, cc_u32 e, cc_s32 f, cc_u64 g, cc_s64 h,
		cc_bool i, cc_s8 j, cc_u16 k, cc_s32 l)
{
	return W(a) * 3 + W(b) * 5 + W(c) * 7 + W(d) * 11 + W(e) * 13 + W(f) * 17 + g * 19
	       + W(h) * 23 + W(i) * 29 + W(j) * 31 + W(k) * 37 + W(l) * 41;
}

CROSSCHECK_KFUNC cc_u64 crosscheck_kfunc_mixed9(
		cc_s64 a, cc_bool b, cc_s32 c, cc_u8 d, cc_u16 e, cc_s8 f, cc_u32 g, cc_s16 h,
		cc_u64 i)
{
	return W(a) * 3 + W(b) * 5 + W(c) * 7 + W(d) * 11 + W(e) * 13 + W(f) * 17 + W(g) * 19
	       + W(h) * 23 + i * 29;
}

CROSSCHECK_KFUNC cc_bool crosscheck_kfunc_bool_of_6(
		cc_u64 a, cc_u64 b, cc_u64 c, cc_u64 d, cc_u64 e, cc_u64 f)
{
	return (a * 3 + b * 5 + c * 7 + d * 11 + e * 13 + f * 17) % 3 == 1;
}

CROSSCHECK_KFUNC cc_u8 crosscheck_kfunc_u8_of_6(
		cc_u64 a, cc_u64 b, cc_u64 c, cc_u64 d, cc_u64 e, cc_u64 f)
{
	return (cc_u8)(a * 3 + b * 5 + c * 7 + d * 11 + e * 13 + f * 17);
}

CROSSCHECK_KFUNC cc_s8 crosscheck_kfunc_s8_of_6(
		cc_u64 a, cc_u64 b, cc_u64 c, cc_u64 d, cc_u64 e, cc_u64 f)
{
	return (cc_s8)(a * 3 + b * 5 + c * 7 + d * 11 + e * 13 + f * 17);
}

CROSSCHECK_KFUNC cc_u16 crosscheck_kfunc_u16_of_6(
		cc_u64 a, cc_u64 b, cc_u64 c, cc_u64 d, cc_u64 e, cc_u64 f)
{
	return (cc_u16)(a * 3 + b * 5 + c * 7 + d * 11 + e * 13 + f * 17);
}

CROSSCHECK_KFUNC cc_s16 crosscheck_kfunc_s16_of_6(
		cc_u64 a, cc_u64 b, cc_u64 c, cc_u64 d, cc_u64 e, cc_u64 f)
{
	return (cc_s16)(a * 3 + b * 5 + c * 7 + d * 11 + e * 13 + f * 17);
}

CROSSCHECK_KFUNC cc_u32 crosscheck_kfunc_u32_of_6(
		cc_u64 a, cc_u64 b, cc_u64 c, cc_u64 d, cc_u64 e, cc_u64 f)
{
	return (cc_u32)(a * 3 + b * 5 + c * 7 + d * 11 + e * 13 + f * 17);
}

CROSSCHECK_KFUNC cc_s32 crosscheck_kfunc_s32_of_6(
		cc_u64 a, cc_u64 b, cc_u64 c, cc_u64 d, cc_u64 e, cc_u64 f)
{
	return (cc_s32)(a * 3 + b * 5 + c * 7 + d * 11 + e * 13 + f * 17);
}

CROSSCHECK_KFUNC cc_s64 crosscheck_kfunc_s64_of_6(
		cc_u64 a, cc_u64 b, cc_u64 c, cc_u64 d, cc_u64 e, cc_u64 f)
{
	return (cc_s64)(a * 3 + b * 5 + c * 7 + d * 11 + e * 13 + f * 17);
}

CROSSCHECK_KFUNC cc_u64 crosscheck_kfunc_pointers9(
		cc_u64 a, cc_u32 *b, cc_u64 c, cc_u64 d, cc_u64 e, struct crosscheck_pair *f, cc_u64 g,
		cc_u64 *h, cc_s16 i)
{
	cc_u64 sum = a * 3 + *b * 5ull + c * 7 + d * 11 + e * 13 + f->left * 17ull + W(f->right) * 19 +
		     f->total * 23 + g * 29 + *h * 31 + W(i) * 37;

	*b = (cc_u32)(sum >> 32);
	f->left += 1;
	f->right = (cc_s32)((cc_u32)f->right ^ (cc_u32)g);
	f->total = sum;
	*h = c - d;
	return sum;
}

CROSSCHECK_KFUNC void crosscheck_kfunc_swap8(
		cc_u64 a, cc_u64 b, cc_u64 c, cc_u64 d, cc_u64 e, cc_u64 f, struct crosscheck_pair *g,
		struct crosscheck_pair *h)
{
	struct crosscheck_pair kept = *g;

	g->left = h->left;
	g->right = h->right;
	g->total = h->total + (a ^ b ^ c);
	h->left = kept.left;
	h->right = kept.right;
	h->total = kept.total + (d ^ e ^ f);
}

static cc_u64 crosscheck_digest(cc_u64 seed, const void *memory, cc_u64 size)
{
	const cc_u8 *byte = memory;
	cc_u64 at;

	for (at = 0; at < size; at++)
		seed = seed * 33 + byte[at];
	return seed;
}

CROSSCHECK_KFUNC cc_u64 crosscheck_kfunc_memory6(
		cc_u64 a, cc_u64 b, cc_u64 c, cc_u64 d, void *memory, cc_u32 memory__sz)
{
	return crosscheck_digest(a * 3 + b * 5 + c * 7 + d * 11, memory, memory__sz);
}

CROSSCHECK_KFUNC cc_u64 crosscheck_kfunc_memory9(
		cc_u64 a, cc_u64 b, cc_u64 c, cc_u64 d, cc_u64 e, cc_u64 f, void *memory,
		cc_u32 memory__sz, cc_u64 i)
{
	return crosscheck_digest(a * 3 + b * 5 + c * 7 + d * 11 + e * 13 + f * 17 + i * 29, memory,
				 memory__sz);
}

CROSSCHECK_KFUNC cc_s32 crosscheck_kfunc_fill8(
		cc_u64 a, cc_u64 b, cc_u64 c, cc_u64 d, cc_u64 e, void *memory, cc_u64 memory__sz,
		cc_u8 value)
{
	cc_u64 sum = a * 3 + b * 5 + c * 7 + d * 11 + e * 13;
	cc_u8 *byte = memory;
	cc_u64 at;

	for (at = 0; at < memory__sz; at++)
		byte[at] = (cc_u8)(value + at + (sum >> at % 8));
	return (cc_s32)sum;
}

CROSSCHECK_KFUNC cc_u64 crosscheck_kfunc_string7(
		cc_u64 a, cc_u64 b, cc_u64 c, cc_u64 d, cc_u64 e, const char *text__str, cc_u32 limit)
{
	cc_u64 length = 0;

	while (text__str[length] && length < limit)
		length++;
	return crosscheck_digest(a * 3 + b * 5 + c * 7 + d * 11 + e * 13, text__str, length);
}

CROSSCHECK_KFUNC cc_u64 crosscheck_kfunc_nullable7(
		cc_u64 a, cc_u64 b, cc_u64 c, cc_u64 d, cc_u64 e, cc_u64 *f__nullable, cc_u64 g)
{
	cc_u64 sum = a * 3 + b * 5 + c * 7 + d * 11 + e * 13 + g * 19;

	if (!f__nullable)
		return sum;
	*f__nullable ^= sum;
	return sum + 1;
}

/* clang for BPF compiles neither of the last two: there they are declared only. */
CROSSCHECK_KFUNC cc_u64 crosscheck_kfunc_struct6(
		cc_u64 a, cc_u64 b, cc_u64 c, cc_u64 d, cc_u64 e, struct crosscheck_two f)
{
	return a * 3 + b * 5 + c * 7 + d * 11 + e * 13 + f.low * 17 + f.high * 19;
}

#ifndef __bpf__
CROSSCHECK_KFUNC cc_u64 crosscheck_kfunc_large6(
		cc_u64 a, cc_u64 b, cc_u64 c, cc_u64 d, cc_u64 e, struct crosscheck_three f)
{
	return a * 3 + b * 5 + c * 7 + d * 11 + e * 13 + f.low * 17 + f.middle * 19 + f.high * 23;
}

CROSSCHECK_KFUNC cc_u64 crosscheck_kfunc_args13(
		cc_u64 a, cc_u64 b, cc_u64 c, cc_u64 d, cc_u64 e, cc_u64 f, cc_u64 g, cc_u64 h,
		cc_u64 i, cc_u64 j, cc_u64 k, cc_u64 l, cc_u64 m)
{
	return a * 3 + b * 5 + c * 7 + d * 11 + e * 13 + f * 17 + g * 19 + h * 23 + i * 29 +
	       j * 31 + k * 37 + l * 41 + m * 43;
}
#else
extern cc_u64 crosscheck_kfunc_large6(
		cc_u64 a, cc_u64 b, cc_u64 c, cc_u64 d, cc_u64 e, struct crosscheck_three f)
	__attribute__((section(".ksyms")));
extern cc_u64 crosscheck_kfunc_args13(
		cc_u64 a, cc_u64 b, cc_u64 c, cc_u64 d, cc_u64 e, cc_u64 f, cc_u64 g, cc_u64 h,
		cc_u64 i, cc_u64 j, cc_u64 k, cc_u64 l, cc_u64 m) __attribute__((section(".ksyms")));
const void *crosscheck_declared[] = { crosscheck_kfunc_large6, crosscheck_kfunc_args13 };
#endif

#undef W
