/*
 * Signed division and modulo of arguments in slots, which older instruction sets lack.
 * crosscheck: -mcpu=v4
 */
#include <stdint.h>

int64_t divide_signed(int64_t a, int64_t b, int64_t c, int64_t d, int64_t e, int64_t f, int64_t g)
{
	int64_t x = f == 0 || f == -1 ? 2 : f;
	int64_t y = g == 0 || g == -1 ? 3 : g;

	return (a ^ b) / x / 2 + (c ^ d) % y / 2 + (e & 0xffff);
}

int32_t divide_signed32(int32_t a, int32_t b, int32_t c, int32_t d, int32_t e, int32_t f,
			int32_t g)
{
	int32_t x = f == 0 || f == -1 ? 2 : f;
	int32_t y = g == 0 || g == -1 ? 3 : g;

	return (a ^ b) / x / 2 + (c ^ d) % y / 2 + (e & 0xffff);
}

int64_t divide_narrow_signed(int8_t a, int16_t b, int32_t c, int8_t d, int16_t e, int32_t f,
			     int8_t g, int16_t h)
{
	int64_t x = (int64_t)g * 2 + 1;
	int64_t y = (int64_t)h * 4 + 1;

	return a / x + b % y + (int64_t)c / x - (int64_t)f % y + d * e;
}

int64_t divide_constants_signed(int64_t a, int64_t b, int64_t c, int64_t d, int64_t e, int32_t f,
				int16_t g)
{
	return a / 3 + b % -10 + c / 1000 + d % 4096 + e / -7 + f / 8 + g % 100;
}
