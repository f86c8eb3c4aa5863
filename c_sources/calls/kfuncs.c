/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Calls out to kernel functions of six to twelve arguments: each function under test hands its
 * arguments on, changed or in another order, and the kernel's side receives them natively.
 */
#include <crosscheck/kfuncs.h>

#define noinline __attribute__((noinline))

/* Every count of arguments. */

long long out_6(long long a, long long b, long long c, long long d, long long e, long long f)
{
	return crosscheck_kfunc_u64x6(a, b, c, d, e, f) + f;
}

long long out_7(long long a, long long b, long long c, long long d, long long e, long long f,
		long long g)
{
	return crosscheck_kfunc_u64x7(g, f, e, d, c, b, a) - g;
}

long long out_8(long long a, long long b, long long c, long long d, long long e, long long f,
		long long g, long long h)
{
	return crosscheck_kfunc_u64x8((unsigned long long)a + b, b, (unsigned long long)c - d, d,
				      e ^ f, f, g, h);
}

long long out_9(long long a, long long b, long long c, long long d, long long e, long long f,
		long long g, long long h, long long i)
{
	return crosscheck_kfunc_u64x9(i, a, b, c, d, e, f, g, h);
}

long long out_10(long long a, long long b, long long c, long long d, long long e, long long f,
		 long long g, long long h, long long i, long long j)
{
	return crosscheck_kfunc_u64x10(a, c, e, g, i, b, d, f, h, j);
}

long long out_11(long long a, long long b, long long c, long long d, long long e, long long f,
		 long long g, long long h, long long i, long long j, long long k)
{
	return crosscheck_kfunc_u64x11(k, j, i, h, g, f, e, d, c, b, a);
}

long long out_12(long long a, long long b, long long c, long long d, long long e, long long f,
		 long long g, long long h, long long i, long long j, long long k, long long l)
{
	return crosscheck_kfunc_u64x12(a, b, c, d, e, f, g, h, i, j, k, l);
}

/* Constants and the caller's own slots, one call after the other. */

long long out_constants(long long a, long long b, long long c, long long d, long long e,
			long long f)
{
	return crosscheck_kfunc_u64x12(1, 2, 3, 4, 5, -6, 7, 0x123456789abcdef, -9, 10, 11, 12) ^
	       crosscheck_kfunc_u64x12(f, 2, e, 4, d, -6, c, 8, b, 10, a, -12);
}

static noinline unsigned long long between(long long a, long long b, long long c, long long d,
					   long long e, long long f, long long g)
{
	return crosscheck_kfunc_u64x8(a, b, c, d, e, f, g, a) * 3;
}

long long out_between(long long a, long long b, long long c, long long d, long long e, long long f,
		      long long g, long long h)
{
	unsigned long long first = crosscheck_kfunc_u64x7(a, b, c, d, e, f, g);
	unsigned long long second = between(b, c, d, e, f, g, h);

	return first + crosscheck_kfunc_u64x9(second, first, a, b, c, d, e, f, g) + h;
}

long long out_conditional(long long a, long long b, long long c, long long d, long long e,
			  long long f, long long g, long long h)
{
	if (a > b)
		return crosscheck_kfunc_u64x6(a, b, c, d, e, f);
	if (c > d)
		return crosscheck_kfunc_u64x12(a, b, c, d, e, f, g, h, g, f, e, d);
	return crosscheck_kfunc_u64x8(h, g, f, e, d, c, b, a);
}

long long out_loop(long long a, long long b, long long c, long long d, long long e, long long f,
		   long long g)
{
	unsigned long long sum = 0;

	for (long long i = 0; i < 5; i++)
		sum += crosscheck_kfunc_u64x10(sum, a, b, c, d, e, f, g, i, sum + i);
	return sum;
}

/* Results of every width. */

long long out_result_u8(long long a, long long b, long long c, long long d, long long e,
			long long f)
{
	return crosscheck_kfunc_u8_of_6(a, b, c, d, e, f);
}

long long out_result_s8(long long a, long long b, long long c, long long d, long long e,
			long long f)
{
	return crosscheck_kfunc_s8_of_6(a, b, c, d, e, f);
}

long long out_result_u16(long long a, long long b, long long c, long long d, long long e,
			long long f)
{
	return crosscheck_kfunc_u16_of_6(a, b, c, d, e, f);
}

long long out_result_s16(long long a, long long b, long long c, long long d, long long e,
			long long f)
{
	return crosscheck_kfunc_s16_of_6(a, b, c, d, e, f);
}

long long out_result_u32(long long a, long long b, long long c, long long d, long long e,
			long long f)
{
	return crosscheck_kfunc_u32_of_6(a, b, c, d, e, f);
}

long long out_result_s32(long long a, long long b, long long c, long long d, long long e,
			long long f)
{
	return crosscheck_kfunc_s32_of_6(a, b, c, d, e, f);
}

long long out_result_s64(long long a, long long b, long long c, long long d, long long e,
			long long f)
{
	return crosscheck_kfunc_s64_of_6(a, b, c, d, e, f);
}

long long out_result_bool(long long a, long long b, long long c, long long d, long long e,
			long long f)
{
	return crosscheck_kfunc_bool_of_6(a, b, c, d, e, f);
}

/* Arguments of one width. */

unsigned long long out_u8(unsigned char a, unsigned char b, unsigned char c, unsigned char d,
		unsigned char e, unsigned char f, unsigned char g, unsigned char h,
		unsigned char i, unsigned char j, unsigned char k, unsigned char l)
{
	return crosscheck_kfunc_u8x12(l, k, j, i, h, g, f, e, d, c, b, a) +
	       crosscheck_kfunc_u8x12(a, b, c, d, e, f, g, h, i, j, k, l);
}

unsigned long long out_s8(signed char a, signed char b, signed char c, signed char d,
		signed char e, signed char f, signed char g, signed char h, signed char i,
		signed char j, signed char k, signed char l)
{
	return crosscheck_kfunc_s8x12(l, k, j, i, h, g, f, e, d, c, b, a) +
	       crosscheck_kfunc_s8x12(a, b, c, d, e, f, g, h, i, j, k, l);
}

unsigned long long out_u16(unsigned short a, unsigned short b, unsigned short c, unsigned short d,
		unsigned short e, unsigned short f, unsigned short g, unsigned short h,
		unsigned short i, unsigned short j, unsigned short k, unsigned short l)
{
	return crosscheck_kfunc_u16x12(l, k, j, i, h, g, f, e, d, c, b, a) +
	       crosscheck_kfunc_u16x12(a, b, c, d, e, f, g, h, i, j, k, l);
}

unsigned long long out_s16(short a, short b, short c, short d, short e, short f, short g, short h,
		short i, short j, short k, short l)
{
	return crosscheck_kfunc_s16x12(l, k, j, i, h, g, f, e, d, c, b, a) +
	       crosscheck_kfunc_s16x12(a, b, c, d, e, f, g, h, i, j, k, l);
}

unsigned long long out_u32(unsigned int a, unsigned int b, unsigned int c, unsigned int d,
		unsigned int e, unsigned int f, unsigned int g, unsigned int h, unsigned int i,
		unsigned int j, unsigned int k, unsigned int l)
{
	return crosscheck_kfunc_u32x12(l, k, j, i, h, g, f, e, d, c, b, a) +
	       crosscheck_kfunc_u32x12(a, b, c, d, e, f, g, h, i, j, k, l);
}

unsigned long long out_s32(int a, int b, int c, int d, int e, int f, int g, int h, int i, int j,
		int k, int l)
{
	return crosscheck_kfunc_s32x12(l, k, j, i, h, g, f, e, d, c, b, a) +
	       crosscheck_kfunc_s32x12(a, b, c, d, e, f, g, h, i, j, k, l);
}

unsigned long long out_bool(_Bool a, _Bool b, _Bool c, _Bool d, _Bool e, _Bool f)
{
	return crosscheck_kfunc_boolx12(f, e, d, c, b, a, a, b, c, d, e, f);
}

/* Wide values narrowed on the way, narrow ones widened. */

unsigned long long out_narrowed(long long a, long long b, long long c, long long d, long long e,
				long long f, long long g, long long h, long long i, long long j,
				long long k, long long l)
{
	return crosscheck_kfunc_mixed12(a, b, c, d, e, f, g, h, i & 1, j, k, l);
}

unsigned long long out_mixed(unsigned char a, signed char b, unsigned short c, short d,
			     unsigned int e, int f, unsigned long long g, long long h, _Bool i,
			     signed char j, unsigned short k, int l)
{
	return crosscheck_kfunc_mixed12(a, b, c, d, e, f, g, h, i, j, k, l) ^
	       crosscheck_kfunc_mixed9(h, i, f, a, c, b, e, d, g);
}

/* Pointers to what the function was given, and to variables of its own. */

unsigned long long out_pointers(unsigned long long a, unsigned int *b, struct crosscheck_pair *c,
				unsigned long long *d, short e, unsigned long long f)
{
	return crosscheck_kfunc_pointers9(a, b, f, a ^ f, 5, c, f + 1, d, e);
}

unsigned long long out_own_pointers(unsigned long long a, unsigned long long b,
				    unsigned long long c, unsigned long long d,
				    unsigned long long e, short f)
{
	unsigned int word = a;
	unsigned long long wide = b;
	struct crosscheck_pair pair = { .left = c, .right = (int)d, .total = e };
	unsigned long long sum = crosscheck_kfunc_pointers9(a, &word, b, c, d, &pair, e, &wide, f);

	return sum + word + wide * 3 + pair.left * 5ull + (unsigned int)pair.right * 7ull +
	       pair.total * 11;
}

void out_swap(struct crosscheck_pair *a, struct crosscheck_pair *b, unsigned long long c,
	      unsigned long long d, unsigned long long e, unsigned long long f,
	      unsigned long long g)
{
	crosscheck_kfunc_swap8(c, d, e, f, g, c, a, b);
	crosscheck_kfunc_swap8(g, f, e, d, c, d, b, a);
}

unsigned long long out_null(unsigned long long a, unsigned long long *b, unsigned long long c,
			    unsigned long long d, unsigned long long e, unsigned long long f)
{
	return crosscheck_kfunc_nullable7(a, c, d, e, f, 0, c) +
	       crosscheck_kfunc_nullable7(a, c, d, e, f, b, d);
}

/* Memory and its size. */

unsigned long long out_memory(unsigned long long a, unsigned long long b, unsigned long long c,
			      unsigned long long d,
			      unsigned char *e __attribute__((btf_decl_tag("elements:32"))),
			      unsigned int f)
{
	return crosscheck_kfunc_memory6(a, b, c, d, e, 32) ^
	       crosscheck_kfunc_memory9(a, b, c, d, a + b, c + d, e + 8, f & 15, f);
}

int out_fill(unsigned char *a __attribute__((btf_decl_tag("elements:24"))), unsigned long long b,
	     unsigned long long c, unsigned long long d, unsigned long long e, unsigned char f)
{
	return (unsigned int)crosscheck_kfunc_fill8(b, c, d, e, b ^ c, a, 24, f) +
	       crosscheck_kfunc_fill8(e, d, c, b, d ^ e, a + 4, 9, f + 1);
}

unsigned long long out_stack_memory(unsigned long long a, unsigned long long b,
				    unsigned long long c, unsigned long long d,
				    unsigned long long e, unsigned char f)
{
	unsigned char memory[40];
	int sum = crosscheck_kfunc_fill8(a, b, c, d, e, memory, sizeof(memory), f);

	return sum + crosscheck_kfunc_memory6(a, b, c, d, memory + 1, 31);
}

/* A constant string. */

static const char words[] = "twelve arguments, and not one copied";

unsigned long long out_string(unsigned long long a, unsigned long long b, unsigned long long c,
			      unsigned long long d, unsigned long long e, unsigned int f)
{
	return crosscheck_kfunc_string7(a, b, c, d, e, words, f & 63) +
	       crosscheck_kfunc_string7(e, d, c, b, a, words + 7, 99);
}
