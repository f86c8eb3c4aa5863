/* Calls under conditions: slots written on some paths, results that decide. */
#include <stdbool.h>
#include <stdint.h>

static __attribute__((noinline)) int64_t six(int64_t a, int64_t b, int64_t c, int64_t d, int64_t e,
					     int64_t f)
{
	return (int64_t)((uint64_t)a - (uint64_t)b + (uint64_t)c - (uint64_t)d + (uint64_t)e -
			 (uint64_t)f);
}

static __attribute__((noinline)) int64_t nine(int64_t a, int64_t b, int64_t c, int64_t d,
					      int64_t e, int64_t f, int64_t g, int64_t h,
					      int64_t i)
{
	return a ^ b ^ c ^ d ^ e ^ f ^ g ^ h ^ i;
}

static __attribute__((noinline)) bool less(uint32_t a, uint32_t b, uint32_t c, uint32_t d,
					   uint32_t e, uint32_t f, uint32_t g)
{
	return a + b + c < d + e + f + g;
}

int64_t condition_either(int64_t a, int64_t b, int64_t c, int64_t d, int64_t e, int64_t f,
			 bool which)
{
	return which ? six(a, b, c, d, e, f) : nine(a, b, c, d, e, f, a, b, c);
}

int64_t condition_maybe(int64_t a, int64_t b, int64_t c, int64_t d, int64_t e, int64_t f,
			int64_t g)
{
	int64_t r = 0;

	if (a < g)
		r = six(g, f, e, d, c, b);
	if (r > f)
		r = nine(r, a, b, c, d, e, f, g, r);
	return r;
}

uint32_t condition_short_circuit(uint32_t a, uint32_t b, uint32_t c, uint32_t d, uint32_t e,
				 uint32_t f, uint32_t g, uint32_t h)
{
	if (less(a, b, c, d, e, f, g) && (less(h, g, f, e, d, c, b) || less(a, a, b, b, c, c, d)))
		return a + h;
	return a - h;
}

int64_t condition_argument(int64_t a, int64_t b, int64_t c, int64_t d, int64_t e, int64_t f,
			   int64_t g, unsigned int mask)
{
	return nine(mask & 1 ? a : b, mask & 2 ? b : c, mask & 4 ? c : d, mask & 8 ? d : e,
		    mask & 16 ? e : f, mask & 32 ? f : g, mask & 64 ? g : a, mask & 128 ? a : 0,
		    mask & 256 ? -1 : 1);
}

int64_t condition_switch(unsigned int which, int64_t a, int64_t b, int64_t c, int64_t d, int64_t e,
			 int64_t f, int64_t g)
{
	switch (which & 7) {
	case 0:
		return six(a, b, c, d, e, f);
	case 1:
		return six(b, c, d, e, f, g);
	case 2:
		return nine(a, b, c, d, e, f, g, 0, 0);
	case 5:
		return nine(g, g, g, a, a, a, b, b, b);
	case 6:
		return g;
	default:
		return -1;
	}
}

/* Which of two pointers goes into a slot is known only when it runs. */
int64_t condition_pointer(int64_t *a, int64_t *b, int64_t c, int64_t d, int64_t e, int64_t *f,
			  int64_t *g, bool first, bool second)
{
	int64_t *p = first ? a : g;
	int64_t *q = second ? b : f;

	*p = (int64_t)((uint64_t)*p + (uint64_t)c);
	*q ^= d;
	return *p ^ *q ^ e;
}
