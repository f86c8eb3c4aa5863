/* Sign and zero extension of arguments that came through a slot. */
#include <stdint.h>

int64_t extend_signed(int64_t a, int64_t b, int64_t c, int64_t d, int64_t e, int8_t f, int16_t g,
		      int32_t h)
{
	int64_t x = f, y = g, z = h;

	return (int64_t)((uint64_t)a + (uint64_t)b + (uint64_t)c + (uint64_t)d + (uint64_t)e +
			 (uint64_t)x * 3 + (uint64_t)y * 5 + (uint64_t)z * 7);
}

uint64_t extend_unsigned(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint8_t f,
			 uint16_t g, uint32_t h)
{
	return a + b + c + d + e + (uint64_t)f * 3 + (uint64_t)g * 5 + (uint64_t)h * 7;
}

/* The low half of a 64-bit slot, read as signed and as unsigned. */
int64_t extend_low_half(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f,
			uint64_t g)
{
	int32_t lo = (int32_t)f;
	uint32_t ulo = (uint32_t)g;

	return (int64_t)(a + b + c + d + e + (uint64_t)(int64_t)lo + ulo);
}

int64_t extend_chain(int8_t a, int16_t b, int32_t c, int64_t d, uint8_t e, int64_t f, int64_t g)
{
	int8_t x = (int8_t)f;
	int16_t y = (int16_t)g;
	int64_t r = x;

	r = (int64_t)((uint64_t)r * (uint64_t)(int64_t)y);
	r ^= a;
	r ^= (int64_t)b * 4;
	r ^= c;
	r ^= d;
	return r ^ e;
}

int extend_compare_signed(int a, int b, int c, int d, int e, int8_t f, int16_t g, int32_t h)
{
	int r = 0;

	if (f < a)
		r |= 1;
	if (g < b)
		r |= 2;
	if (h < c)
		r |= 4;
	if ((int8_t)h < d)
		r |= 8;
	if ((int16_t)h >= e)
		r |= 16;
	return r;
}

unsigned int extend_compare_unsigned(uint64_t a, uint32_t b, uint16_t c, uint8_t d, uint64_t e,
				     uint32_t f, uint16_t g, uint8_t h, uint64_t i)
{
	return (a < f) | (b < g) << 1 | (c < h) << 2 | (d < (uint8_t)i) << 3 |
	       (e < i) << 4 | ((uint32_t)i > f) << 5;
}

int64_t extend_bool(_Bool a, _Bool b, _Bool c, _Bool d, _Bool e, _Bool f, int64_t g, _Bool h)
{
	uint64_t bits = a + 2u * b + 4u * c + 8u * d + 16u * e + 32u * f;

	return (int64_t)(bits + (uint64_t)(h ? g : ~g));
}
