/* Byte order conversions of arguments, in registers and slots. */
#include <stdint.h>

uint64_t swap_each(uint16_t a, uint32_t b, uint64_t c, uint16_t d, uint32_t e, uint16_t f,
		   uint32_t g, uint64_t h)
{
	return __builtin_bswap16(a) + (uint64_t)__builtin_bswap32(b) + __builtin_bswap64(c) +
	       __builtin_bswap16(d) - (uint64_t)__builtin_bswap32(e) + __builtin_bswap16(f) +
	       (uint64_t)__builtin_bswap32(g) + __builtin_bswap64(h);
}

uint64_t swap_partial(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f,
		      uint64_t g)
{
	return __builtin_bswap64(a ^ f) ^ __builtin_bswap32((uint32_t)(b ^ g)) ^
	       (uint64_t)__builtin_bswap16((uint16_t)c) << 17 ^ d ^ e;
}

void swap_memory(uint16_t *a, uint32_t *b, uint64_t *c, uint16_t *d, uint32_t *e, uint64_t *f,
		 uint16_t *g)
{
	*a = __builtin_bswap16(*a);
	*b = __builtin_bswap32(*b);
	*c = __builtin_bswap64(*c);
	*d = (uint16_t)(__builtin_bswap16(*g) ^ *d);
	*e = __builtin_bswap32(*e) ^ *b;
	*f = __builtin_bswap64(*f) ^ *c;
	*g = (uint16_t)(*a + *d);
}

int64_t swap_signed(int16_t a, int32_t b, int64_t c, int16_t d, int32_t e, int16_t f, int32_t g)
{
	return (int64_t)(int16_t)__builtin_bswap16((uint16_t)a) +
	       (int32_t)__builtin_bswap32((uint32_t)b) +
	       ((int64_t)__builtin_bswap64((uint64_t)c) >> 3) + d + e +
	       (int16_t)__builtin_bswap16((uint16_t)f) + (int32_t)__builtin_bswap32((uint32_t)g);
}
