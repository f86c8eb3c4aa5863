/* Shifts and rotates by amounts that come through slots. */
#include <stdint.h>

uint64_t shift_all(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint32_t f,
		   uint32_t g, uint32_t h)
{
	return (a << (f & 63)) ^ (b >> (g & 63)) ^ (uint64_t)((int64_t)c >> (h & 63)) ^ d ^ e;
}

uint32_t shift_all32(uint32_t a, uint32_t b, uint32_t c, uint32_t d, uint32_t e, uint32_t f,
		     uint32_t g, uint32_t h)
{
	return (a << (f & 31)) ^ (b >> (g & 31)) ^ (uint32_t)((int32_t)c >> (h & 31)) ^ d ^ e;
}

static inline uint64_t rotate(uint64_t x, uint32_t n)
{
	return x << (n & 63) | x >> (-n & 63);
}

uint64_t shift_rotate(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f,
		      uint32_t g, uint8_t h)
{
	return rotate(a ^ f, g) + rotate(b ^ e, h) + rotate(c, g + h) - rotate(d, 1);
}

uint64_t shift_by_byte(uint64_t a, uint8_t b, uint8_t c, uint8_t d, uint8_t e, uint8_t f, uint8_t g)
{
	a <<= b & 15;
	a ^= a >> (c & 31);
	a ^= a << (d & 31);
	a = (uint64_t)((int64_t)a >> (e & 7));
	a ^= a >> (f & 63);
	return a << (g & 63);
}

int64_t shift_signed_narrow(int8_t a, int16_t b, int32_t c, int64_t d, uint32_t e, int8_t f,
			    int16_t g, int32_t h)
{
	return ((a >> (e & 7)) + (b >> (e & 15)) + (int64_t)(c >> (e & 31))) ^
	       ((d >> (e & 63)) ^ ((f >> (e & 7)) - (g >> (e & 15)) - (int64_t)(h >> (e & 31))));
}

uint64_t shift_constants(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f,
			 uint64_t g)
{
	return a << 63 ^ b >> 63 ^ c << 32 ^ d >> 32 ^ e << 31 ^ f >> 31 ^
	       (uint64_t)((int64_t)g >> 63);
}
