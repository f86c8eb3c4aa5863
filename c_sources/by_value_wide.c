/*
 * Structs of 9 to 16 bytes by value: two slots each, and one may share r5 and slot 1.
 * clang does this; Linux 7.3 counts BTF parameters, so it refuses most of these programs.
 * The compiled code is checked all the same.
 */
#include <stdint.h>

struct wide {
	uint64_t a, b;
};

struct uneven {
	uint64_t a;
	uint8_t b;
};

struct words {
	int32_t a, b, c;
};

/* a: r1 r2, b: r3 r4, c: r5 and slot 1 */
uint64_t wide_three(struct wide a, struct wide b, struct wide c)
{
	return a.a + 2 * a.b + 3 * b.a + 4 * b.b + 5 * c.a + 6 * c.b;
}

uint64_t wide_straddle(uint64_t a, uint64_t b, uint64_t c, uint64_t d, struct wide e, uint64_t f)
{
	return a + 2 * b + 3 * c + 4 * d + 5 * e.a + 6 * e.b + 7 * f;
}

uint64_t wide_in_slots(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, struct wide f,
		       struct wide g)
{
	return a ^ b ^ c ^ d ^ e ^ f.a ^ f.b << 1 ^ g.a << 2 ^ g.b << 3;
}

uint64_t wide_uneven(uint32_t a, uint32_t b, uint32_t c, uint32_t d, struct uneven e,
		     struct uneven f, uint32_t g)
{
	return a + b + c + d + e.a + e.b + f.a + f.b + g;
}

int64_t wide_words(int32_t a, struct words b, int32_t c, struct words d, struct words e, int32_t f)
{
	return (int64_t)a + b.a + b.b + b.c + c + d.a + d.b - d.c + e.a - e.b + e.c + f;
}
