/*
 * Results of 9 to 16 bytes. clang 23.1 returns them in two registers, r0 and r2; Linux 7.3 knows
 * r0 alone, and to it r2 is spoilt by every call, so it refuses the caller's use of it.
 * The compiled code is checked all the same.
 */

struct pair {
	unsigned long x, y;
};

struct three {
	int x, y, z;
};

struct pair wide_result(long a, long b, long c, long d, long e, long f)
{
	struct pair p = { a ^ b ^ c, d ^ e ^ f };

	return p;
}

struct three wide_result_uneven(int a, int b, int c, int d, int e, int f)
{
	struct three t = { a ^ d, b ^ e, c ^ f };

	return t;
}

static __attribute__((noinline)) struct pair wide_inner(unsigned long a, unsigned long b,
		unsigned long c, unsigned long d, unsigned long e, unsigned long f)
{
	struct pair p = { a ^ b ^ c, d ^ e ^ f };

	return p;
}

unsigned long wide_result_used(unsigned long a, unsigned long b, unsigned long c, unsigned long d,
		unsigned long e, unsigned long f)
{
	struct pair p = wide_inner(a, b, c, d, e, f);
	struct pair q = wide_inner(f, e, d, c, b, p.x);

	return p.x * 3 + p.y * 5 + q.x * 7 + q.y;
}
