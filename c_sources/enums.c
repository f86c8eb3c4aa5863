/* Enums of 32 and 64 bits, signed and unsigned, and booleans. */
#include <stdbool.h>
#include <stdint.h>

enum color { RED, GREEN = 5, BLUE };
enum level { LOW = -3, MIDDLE = 0, HIGH = 1000 };
enum huge { NONE, FAR = 0x100000000ull };

uint32_t enum_unsigned(enum color a, enum color b, enum color c, enum color d, enum color e,
		       enum color f, enum color g)
{
	return (uint32_t)a + (uint32_t)b * 3 + (uint32_t)c * 5 + (uint32_t)d * 7 +
	       (uint32_t)e * 11 + (f == GREEN ? 100u : 200u) + (g == BLUE);
}

int64_t enum_signed(enum level a, enum level b, enum level c, enum level d, enum level e,
		    enum level f, enum level g, enum level h)
{
	return (int64_t)a + b + c - d - e + (f < MIDDLE ? f : g) - (h > MIDDLE);
}

uint64_t enum_wide(enum huge a, uint64_t b, enum huge c, uint64_t d, enum huge e, enum huge f,
		   enum color g)
{
	return ((uint64_t)a ^ b) + ((uint64_t)c ^ d) + (uint64_t)e - (uint64_t)f + (uint64_t)g;
}

/* At -O0 every bool doubles the paths that Linux walks: eight are enough. */
bool enum_bools(bool a, bool b, uint8_t c, bool d, uint64_t e, bool f, bool g, bool h, int8_t i,
		bool j, uint32_t k, bool l)
{
	return (a ^ b) | ((c & 1) & d) | ((e & 1) ^ f ^ g) | (h & (i < 0)) | (j ^ (k >> 31) ^ l);
}

bool enum_compare(int64_t a, int64_t b, int64_t c, int64_t d, int64_t e, int64_t f, int64_t g)
{
	return a < b && (c >= d || e != f) && g;
}

enum level enum_result(int a, int b, int c, int d, int e, int f, enum level g)
{
	return (a ^ b ^ c) < (d ^ e ^ f) ? g : LOW;
}
