/* Locals, and arguments themselves, whose addresses go through slots. */
#include <stdint.h>

struct box {
	uint32_t a;
	uint16_t b[2];
	uint64_t c;
};

static __attribute__((noinline)) void fill(uint64_t a, uint64_t b, uint64_t c, uint64_t d,
					   uint64_t e, uint64_t *out, uint32_t *half,
					   struct box *box)
{
	*out = a + b;
	*half = (uint32_t)(c ^ d);
	box->a = (uint32_t)e;
	box->b[0] = (uint16_t)a;
	box->b[1] = (uint16_t)b;
	box->c = c;
}

static __attribute__((noinline)) uint64_t take(const uint64_t *a, const uint64_t *b, uint64_t *c,
					       uint64_t *d, uint32_t *e, uint16_t *f, uint8_t *g)
{
	*c += *a;
	*d ^= *b;
	*e = (uint32_t)*c;
	*f = (uint16_t)*d;
	*g = (uint8_t)(*e + *f);
	return *c ^ *d;
}

uint64_t address_locals(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f)
{
	uint64_t out = f;
	uint32_t half = 0;
	struct box box = { 0 };

	fill(a, b, c, d, e, &out, &half, &box);
	return out ^ half ^ box.a ^ box.b[0] ^ box.b[1] ^ box.c ^ f;
}

uint64_t address_arguments(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint32_t e, uint16_t f,
			   uint8_t g, uint64_t h)
{
	uint64_t r = take(&a, &b, &c, &d, &e, &f, &g);

	return r + a + b + c + d + e + f + g + h;
}

/* The incoming slot's own address: the argument gets a home in the frame. */
uint64_t address_slot_argument(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e,
			       uint64_t f, uint32_t g, uint64_t h)
{
	uint16_t x = 0;
	uint8_t y = 0;
	uint64_t r = take(&f, &h, &f, &h, &g, &x, &y);

	return r ^ f ^ g ^ h ^ x ^ y ^ a ^ b ^ c ^ d ^ e;
}

uint64_t address_parts(struct box *box, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e,
		       uint8_t (*bytes)[4])
{
	uint64_t x = a ^ e;

	return take(&b, &box->c, &x, &d, &box->a, &box->b[1], &(*bytes)[2]) + c;
}
