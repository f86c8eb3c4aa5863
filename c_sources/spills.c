/* More live values than registers, across calls with stack arguments. */
#include <stdint.h>

static __attribute__((noinline)) uint64_t mash(uint64_t a, uint64_t b, uint64_t c, uint64_t d,
					       uint64_t e, uint64_t f, uint64_t g, uint64_t h)
{
	return (a + b) ^ (c + d) ^ (e + f) ^ (g + h);
}

uint64_t spill_twelve(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f,
		      uint64_t g, uint64_t h, uint64_t i, uint64_t j, uint64_t k, uint64_t l)
{
	uint64_t x = mash(a, b, c, d, e, f, g, h);
	uint64_t y = mash(e, f, g, h, i, j, k, l);
	uint64_t z = mash(x, y, a, l, b, k, c, j);

	return a + b * 3 + c * 5 + d * 7 + e * 11 + f * 13 + g * 17 + h * 19 + i * 23 + j * 29 +
	       k * 31 + l * 37 + x * 41 + y * 43 + z * 47;
}

uint64_t spill_volatile(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f,
			uint64_t g)
{
	volatile uint64_t va = a, vf = f, vg = g;
	volatile uint32_t low = (uint32_t)vf;

	va += vg;
	vf ^= va;
	vg -= low;
	return mash(va, b, c, d, e, vf, vg, low);
}

uint32_t spill_narrow(uint8_t a, uint16_t b, uint32_t c, int8_t d, int16_t e, int32_t f, uint8_t g,
		      uint16_t h, uint32_t i)
{
	uint64_t x = mash(a, b, c, (uint64_t)d, (uint64_t)e, (uint64_t)f, g, h);
	uint64_t y = mash(i, h, g, (uint64_t)f, (uint64_t)e, (uint64_t)d, c, b);

	return (uint32_t)(x + y) + a + b + c + (uint32_t)d + (uint32_t)e + (uint32_t)f + g + h + i;
}

uint64_t spill_local_array(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f,
			   uint64_t g, uint64_t h)
{
	volatile uint64_t t[8] = { a, b, c, d, e, f, g, h };

	for (int i = 0; i < 7; i++)
		t[i + 1] += t[i] * 3;
	return mash(t[7], t[6], t[5], t[4], t[3], t[2], t[1], t[0]);
}

uint64_t spill_pointers(uint64_t *a, uint64_t *b, uint64_t *c, uint64_t *d, uint64_t *e,
			uint64_t *f, uint64_t *g, uint64_t *h)
{
	uint64_t x = mash(*a, *b, *c, *d, *e, *f, *g, *h);

	*a = mash(*h, *g, *f, *e, *d, *c, *b, *a);
	*h = x;
	*d = mash(*a, x, *a, x, *a, x, *a, *h);
	return *a ^ *d;
}
