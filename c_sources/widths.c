/* Arguments of every width, signed and unsigned, on both sides of the register border. */
#include <stdint.h>

uint64_t widths_ascending(uint8_t a, uint16_t b, uint32_t c, uint64_t d, int8_t e, int16_t f,
			  int32_t g, int64_t h)
{
	return a + 3u * b + 5u * (uint64_t)c + 7 * d + 11 * (uint64_t)e + 13 * (uint64_t)f +
	       17 * (uint64_t)g + 19 * (uint64_t)h;
}

uint64_t widths_descending(int64_t a, int32_t b, int16_t c, int8_t d, uint64_t e, uint32_t f,
			   uint16_t g, uint8_t h)
{
	return (uint64_t)a ^ (uint64_t)b << 1 ^ (uint64_t)c << 2 ^ (uint64_t)d << 3 ^ e << 4 ^
	       (uint64_t)f << 5 ^ (uint64_t)g << 6 ^ (uint64_t)h << 7;
}

/* Twelve arguments, all narrow: seven slots that hold one byte each. */
uint32_t widths_bytes12(uint8_t a, int8_t b, uint8_t c, int8_t d, uint8_t e, int8_t f, uint8_t g,
			int8_t h, uint8_t i, int8_t j, uint8_t k, int8_t l)
{
	uint32_t r = a;

	r = r * 31 + (uint32_t)b;
	r = r * 31 + c;
	r = r * 31 + (uint32_t)d;
	r = r * 31 + e;
	r = r * 31 + (uint32_t)f;
	r = r * 31 + g;
	r = r * 31 + (uint32_t)h;
	r = r * 31 + i;
	r = r * 31 + (uint32_t)j;
	r = r * 31 + k;
	return r * 31 + (uint32_t)l;
}

int16_t widths_shorts(int16_t a, uint16_t b, int16_t c, uint16_t d, int16_t e, uint16_t f,
		      int16_t g)
{
	return (int16_t)(a - b + c - d + e - f + g);
}

int8_t widths_narrow_result(int64_t a, int64_t b, int64_t c, int64_t d, int64_t e, int64_t f)
{
	return (int8_t)(a ^ b ^ c ^ d ^ e ^ f);
}

uint16_t widths_narrow_slot_result(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e,
				   uint16_t f, uint64_t g)
{
	return (uint16_t)(f + (g >> 48) + (a & b & c & d & e));
}

int64_t widths_all64(int64_t a, int64_t b, int64_t c, int64_t d, int64_t e, int64_t f, int64_t g,
		     int64_t h, int64_t i, int64_t j, int64_t k, int64_t l)
{
	return (int64_t)((uint64_t)a - (uint64_t)b + (uint64_t)c - (uint64_t)d + (uint64_t)e -
			 (uint64_t)f + (uint64_t)g - (uint64_t)h + (uint64_t)i - (uint64_t)j +
			 (uint64_t)k - (uint64_t)l);
}

int32_t widths_all32(int32_t a, int32_t b, int32_t c, int32_t d, int32_t e, int32_t f, int32_t g,
		     int32_t h, int32_t i, int32_t j, int32_t k, int32_t l)
{
	return (int32_t)((uint32_t)a * 2 + (uint32_t)b * 3 + (uint32_t)c * 5 + (uint32_t)d * 7 +
			 (uint32_t)e * 11 + (uint32_t)f * 13 + (uint32_t)g * 17 +
			 (uint32_t)h * 19 + (uint32_t)i * 23 + (uint32_t)j * 29 +
			 (uint32_t)k * 31 + (uint32_t)l * 37);
}

/* Arguments that are never read still take their place. */
uint64_t widths_dead(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint8_t f,
		     uint64_t g, int16_t h, uint64_t i)
{
	(void)b;
	(void)d;
	(void)f;
	(void)h;
	return a + (c ^ e) + i - g;
}
