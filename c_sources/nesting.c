/* Frames to the limit of eight (the driver is the first), each with stack arguments. */
#include <stdint.h>

#define ARGS uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f, uint64_t g
#define LEVEL(n, next) \
	static __attribute__((noinline)) uint64_t level##n(ARGS) \
	{ \
		return next(b, c, d, e, f, g, a + n) + (a ^ g); \
	}

static __attribute__((noinline)) uint64_t level7(ARGS)
{
	return a + 2 * b + 3 * c + 4 * d + 5 * e + 6 * f + 7 * g;
}

LEVEL(6, level7)
LEVEL(5, level6)
LEVEL(4, level5)
LEVEL(3, level4)

uint64_t nesting_eight_frames(ARGS)
{
	return level3(g, f, e, d, c, b, a);
}

static __attribute__((noinline)) uint64_t wide7(uint64_t a, uint64_t b, uint64_t c, uint64_t d,
						uint64_t e, uint64_t f, uint64_t g, uint64_t h,
						uint64_t i, uint64_t j, uint64_t k, uint64_t l)
{
	return a - b + c - d + e - f + g - h + i - j + k - l;
}

static __attribute__((noinline)) uint64_t narrow6(uint64_t a, uint64_t b, uint64_t c, uint64_t d,
						  uint64_t e, uint64_t f)
{
	return wide7(f, e, d, c, b, a, a, b, c, d, e, f) + a;
}

static __attribute__((noinline)) uint64_t wide5(uint64_t a, uint64_t b, uint64_t c, uint64_t d,
						uint64_t e, uint64_t f, uint64_t g, uint64_t h,
						uint64_t i, uint64_t j, uint64_t k, uint64_t l)
{
	return narrow6(a + l, b + k, c + j, d + i, e + h, f + g) ^ l;
}

/* Areas of different sizes, one frame after the other. */
uint64_t nesting_uneven(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f,
			uint64_t g, uint64_t h, uint64_t i)
{
	return wide5(a, b, c, d, e, f, g, h, i, a ^ i, b ^ h, c ^ g) + narrow6(i, h, g, f, e, d);
}

static __attribute__((noinline)) void down4(uint64_t *a, uint64_t *b, uint64_t *c, uint64_t *d,
					    uint64_t *e, uint64_t *f, uint64_t *g)
{
	*a += *g;
	*g ^= *b;
	*f -= *c + *d + *e;
}

static __attribute__((noinline)) void down3(uint64_t *a, uint64_t *b, uint64_t *c, uint64_t *d,
					    uint64_t *e, uint64_t *f, uint64_t *g)
{
	uint64_t own = *a;

	down4(g, f, e, d, c, b, &own);
	*a = own;
}

/* Pointers into a frame far up, through the slots of every frame between. */
void nesting_pointers(uint64_t *a, uint64_t *b, uint64_t *c, uint64_t *d, uint64_t *e, uint64_t *f,
		      uint64_t *g)
{
	down3(b, c, d, e, f, g, a);
	down4(a, b, c, d, e, f, g);
}
