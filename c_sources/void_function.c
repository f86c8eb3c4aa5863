/*
 * A function that returns nothing and ends with a pointer in r0, the register that was free. Linux
 * takes r0 for a result, and no function may return an address in the stack; by its own comment
 * that is conservative (known.toml, r0-of-void-function).
 */

unsigned long void_start;

__attribute__((noinline)) void void_store(unsigned long a, unsigned long b, unsigned long c,
					  unsigned long d, unsigned long *e, unsigned long *f)
{
	unsigned long v = ((((void_start ^ a) + b) * 31 + c) << 1) + d;

	*e = v;
	*f = v;
}

unsigned long void_caller(unsigned long a, unsigned long b, unsigned long c, unsigned long d,
			  unsigned long e, unsigned long f)
{
	unsigned long v = e, w = f;

	void_store(a, b, c, d, &v, &w);
	return v ^ w;
}
