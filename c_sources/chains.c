/* Functions that forward their arguments: register to slot, slot to register, other widths. */
#include <stdint.h>

static __attribute__((noinline)) uint64_t mix7(uint64_t a, uint64_t b, uint64_t c, uint64_t d,
					       uint64_t e, uint64_t f, uint64_t g)
{
	return a + 3 * b + 5 * c + 7 * d + 11 * e + 13 * f + 17 * g;
}

static __attribute__((noinline)) int64_t narrow8(int8_t a, uint8_t b, int16_t c, uint16_t d,
						 int32_t e, uint32_t f, int8_t g, uint16_t h)
{
	return (int64_t)a - b + c - d + e - (int64_t)f + g - h;
}

static __attribute__((noinline)) uint64_t mix12(uint64_t a, uint64_t b, uint64_t c, uint64_t d,
						uint64_t e, uint64_t f, uint64_t g, uint64_t h,
						uint64_t i, uint64_t j, uint64_t k, uint64_t l)
{
	return a ^ b << 1 ^ c << 2 ^ d << 3 ^ e << 4 ^ f << 5 ^ g << 6 ^ h << 7 ^ i << 8 ^
	       j << 9 ^ k << 10 ^ l << 11;
}

uint64_t chain_same(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f,
		    uint64_t g)
{
	return mix7(a, b, c, d, e, f, g);
}

uint64_t chain_reversed(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f,
			uint64_t g)
{
	return mix7(g, f, e, d, c, b, a);
}

uint64_t chain_rotated(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f,
		       uint64_t g)
{
	return mix7(f, g, a, b, c, d, e) ^ mix7(b, c, d, e, f, g, a);
}

int64_t chain_narrowed(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f,
		       uint64_t g, uint64_t h)
{
	return narrow8((int8_t)h, (uint8_t)g, (int16_t)f, (uint16_t)e, (int32_t)d, (uint32_t)c,
		       (int8_t)b, (uint16_t)a);
}

uint64_t chain_widened(int8_t a, uint8_t b, int16_t c, uint16_t d, int32_t e, uint32_t f, int8_t g)
{
	return mix7((uint64_t)g, f, (uint64_t)e, d, (uint64_t)c, b, (uint64_t)a);
}

uint64_t chain_grown(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f)
{
	return mix12(a, b, c, d, e, f, f, e, d, c, b, a);
}

uint64_t chain_constants(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f)
{
	return mix12(a, 0, 1, (uint64_t)-1, b, 0x7fffffff, 0x80000000, 0xffffffff, c,
		     (uint64_t)-0x80000000l, 0x123456789abcdef, d ^ e ^ f);
}

/* Two calls share the outgoing slots: the second must not see what the first left. */
uint64_t chain_shared_slots(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f,
			    uint64_t g, uint64_t h)
{
	uint64_t x = mix12(a, b, c, d, e, f, g, h, a, b, c, d);

	return x + mix7(h, g, f, e, d, c, x);
}

uint64_t chain_nested_calls(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f,
			    uint64_t g)
{
	return mix7(mix7(a, b, c, d, e, f, g), b, mix7(g, f, e, d, c, b, a), d, e,
		    mix7(a, a, b, b, c, c, d), g);
}
