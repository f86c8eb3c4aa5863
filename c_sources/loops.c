/* Loops around calls: the slots are written anew in every round. */
#include <stdint.h>

static __attribute__((noinline)) uint64_t step(uint64_t a, uint64_t b, uint64_t c, uint64_t d,
					       uint64_t e, uint64_t f, uint64_t g)
{
	return (a ^ b) + (c ^ d) + (e ^ f) * 3 + g;
}

uint64_t loop_fixed(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f,
		    uint64_t g)
{
	uint64_t r = g;

	for (int i = 0; i < 8; i++)
		r = step(a, b, c, d, e, f + (uint64_t)i, r);
	return r;
}

uint64_t loop_bounded(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f,
		      unsigned int n)
{
	uint64_t r = 0;

	for (unsigned int i = 0; i < (n & 15); i++)
		r += step(r, a, b, c, d, e, f);
	return r;
}

uint64_t loop_rotating(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f,
		       uint64_t g)
{
	for (int i = 0; i < 5; i++) {
		uint64_t t = step(a, b, c, d, e, f, g);

		a = b;
		b = c;
		c = d;
		d = e;
		e = f;
		f = g;
		g = t;
	}
	return g;
}

uint32_t loop_array(const uint32_t (*a)[8], uint32_t b, uint32_t c, uint32_t d, uint32_t e,
		    uint32_t f, const uint32_t (*g)[8])
{
	uint32_t r = 0;

	for (int i = 0; i < 8; i++)
		r += (uint32_t)step((*a)[i], b, c, d, e, f, (*g)[7 - i]);
	return r;
}

uint64_t loop_early_exit(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f,
			 uint64_t g, uint64_t limit)
{
	uint64_t r = a;
	int i;

	for (i = 0; i < 10; i++) {
		r = step(r, b, c, d, e, f, g);
		if (r % 16 == (limit & 15))
			break;
	}
	return r + (uint64_t)i;
}

int32_t loop_nested(int32_t a, int32_t b, int32_t c, int32_t d, int32_t e, int32_t f, int32_t g)
{
	uint64_t r = 0;

	for (int i = 0; i < 3; i++)
		for (int j = 0; j < 3; j++)
			r ^= step((uint64_t)a, (uint64_t)b, (uint64_t)c, (uint64_t)d, (uint64_t)e,
				  (uint64_t)(f ^ i), (uint64_t)(g ^ j)) << (i + 3 * j);
	return (int32_t)r;
}
