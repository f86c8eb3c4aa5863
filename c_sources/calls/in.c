/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Functions that native code calls in their JITed form: no memory but their arguments, so that
 * nothing but the calling convention carries them. harness/tests/test_calls.py calls them.
 */

long long in_6(long long a, long long b, long long c, long long d, long long e, long long f)
{
	return (unsigned long long)a * 3 - (unsigned long long)b * 5 + (c ^ d) -
	       (unsigned long long)e * 7 + (unsigned long long)f * 11;
}

long long in_7(long long a, long long b, long long c, long long d, long long e, long long f,
	       long long g)
{
	return a > g ? (b ^ c) : (unsigned long long)d + e - f;
}

unsigned long long in_12(unsigned long long a, unsigned long long b, unsigned long long c,
			 unsigned long long d, unsigned long long e, unsigned long long f,
			 unsigned long long g, unsigned long long h, unsigned long long i,
			 unsigned long long j, unsigned long long k, unsigned long long l)
{
	return a + b * 3 + c * 5 + d * 7 + e * 11 + f * 13 + g * 17 + h * 19 + i * 23 + j * 29 +
	       k * 31 + l * 37;
}

static __attribute__((noinline)) unsigned long long
in_chain_inner(unsigned long long a, unsigned long long b, unsigned long long c,
	       unsigned long long d, unsigned long long e, unsigned long long f,
	       unsigned long long g, unsigned long long h, unsigned long long i)
{
	return a - b * 3 + c / (d | 1) + e % (f | 1) + (g << (h & 31)) - i;
}

unsigned long long in_chain(unsigned long long a, unsigned long long b, unsigned long long c,
			    unsigned long long d, unsigned long long e, unsigned long long f,
			    unsigned long long g, unsigned long long h, unsigned long long i,
			    unsigned long long j)
{
	return in_chain_inner(j, i, h, g, f, e, d, c, b) * 7 +
	       in_chain_inner(a, c, e, g, i, b, d, f, h) + j;
}

int in_narrow(signed char a, unsigned char b, short c, unsigned short d, int e, unsigned int f,
	      signed char g, unsigned char h, short i, unsigned short j, int k, unsigned int l)
{
	return (a * 3 - b * 5 + c * 7 - d * 11) ^ e ^ (int)f ^ (g * 13 - h * 17 + i * 19 - j * 23) ^
	       k ^ (int)l;
}
