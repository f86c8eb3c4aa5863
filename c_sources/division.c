/* Unsigned division and modulo of arguments in slots, 64 and 32 bits. */
#include <stdint.h>

uint64_t divide_unsigned(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f,
			 uint64_t g)
{
	return (a + b) / (f | 1) + (c + d) % (g | 1) + e;
}

uint32_t divide_unsigned32(uint32_t a, uint32_t b, uint32_t c, uint32_t d, uint32_t e, uint32_t f,
			   uint32_t g)
{
	return (a ^ b) / (f | 1) + (c ^ d) % (g | 1) + e;
}

uint64_t divide_constants(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f,
			  uint64_t g)
{
	return a / 3 + b % 10 + c / 1000 + d % 65536 + e / 7 + f / 0xffffffff + g % 0x100000001;
}

uint32_t divide_narrow(uint8_t a, uint16_t b, uint32_t c, uint8_t d, uint16_t e, uint32_t f,
		       uint8_t g, uint16_t h)
{
	return a / (d | 1u) + b / (e | 1u) + c / (f | 1u) + a % (g | 1u) + b % (h | 1u);
}

uint64_t divide_guarded(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f,
			uint64_t g)
{
	uint64_t r = a ^ b ^ c ^ d;

	if (f)
		r += e / f;
	if (g)
		r ^= e % g;
	return r;
}
