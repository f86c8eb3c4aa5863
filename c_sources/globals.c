/* Static functions of many arguments beside global ones, which Linux holds to five. */
#include <stdint.h>

__attribute__((noinline, visibility("default"))) uint64_t global_three(uint64_t a, uint32_t b,
								       uint64_t c)
{
	return a * 3 + b * 5 + c * 7;
}

__attribute__((noinline, visibility("default"))) uint64_t global_five(uint64_t a, uint64_t b,
								      uint64_t c, uint64_t d,
								      uint64_t e)
{
	return (a ^ b) + (c ^ d) + e;
}

static uint64_t counter = 5;
static uint32_t history[4];

uint64_t globals_mixed(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f,
		       uint64_t g)
{
	return global_five(a, b, c, d, e) + global_three(f, (uint32_t)g, g);
}

/* A call of a global function between the reads of the slots and their use. */
uint64_t globals_between(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f,
			 uint64_t g, uint64_t h)
{
	uint64_t x = global_five(h, g, f, e, d);

	return globals_mixed(x, a, b, c, d, e, f) + g * h;
}

uint64_t globals_static_data(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e,
			     uint64_t f, uint32_t g)
{
	counter += a ^ b ^ c ^ d ^ e;
	history[g & 3] = (uint32_t)f;
	history[(g >> 2) & 3] += (uint32_t)counter;
	return counter + history[0] + history[1] + history[2] + history[3];
}
