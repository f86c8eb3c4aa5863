/* Structs and unions of up to eight bytes by value: one register or one slot each. */
#include <stdint.h>

struct one {
	uint8_t a;
};

struct three {
	uint8_t a, b, c;
};

struct pair16 {
	int16_t a, b;
};

struct pair32 {
	int32_t a;
	uint32_t b;
};

struct mixed {
	uint8_t a;
	uint16_t b;
	int32_t c;
};

struct whole {
	uint64_t a;
};

union either {
	uint32_t u;
	int32_t s;
};

struct bits {
	unsigned int low : 5;
	int high : 11;
};

uint32_t by_value_one(struct one a, struct one b, struct one c, struct one d, struct one e,
		      struct one f, struct one g)
{
	return a.a + 2u * b.a + 3u * c.a + 4u * d.a + 5u * e.a + 6u * f.a + 7u * g.a;
}

uint32_t by_value_three(uint64_t a, uint64_t b, uint64_t c, uint64_t d, struct three e,
			struct three f, struct three g)
{
	return (uint32_t)(a ^ b ^ c ^ d) + e.a + 2u * e.b + 3u * e.c + 4u * f.a + 5u * f.b +
	       6u * f.c + 7u * g.a + 8u * g.b + 9u * g.c;
}

int32_t by_value_pairs(struct pair16 a, struct pair16 b, struct pair16 c, struct pair16 d,
		       struct pair16 e, struct pair16 f, struct pair16 g, struct pair16 h)
{
	return a.a - a.b + b.a - b.b + c.a - c.b + d.a - d.b + e.a - e.b + f.a - f.b + g.a - g.b +
	       h.a - h.b;
}

int64_t by_value_words(struct pair32 a, struct pair32 b, struct pair32 c, struct pair32 d,
		       struct pair32 e, struct pair32 f, struct pair32 g)
{
	return (int64_t)a.a + b.b + c.a + d.b + e.a + f.b + g.a - g.b;
}

int64_t by_value_mixed(int64_t a, int64_t b, int64_t c, int64_t d, int64_t e, struct mixed f,
		       struct mixed g, struct mixed h)
{
	uint64_t sum = (uint64_t)(a ^ b ^ c ^ d ^ e) + (uint64_t)(f.a ^ g.b ^ h.c);

	return (int64_t)(sum - (uint64_t)(f.c & 0xffff) * (uint64_t)(g.a | h.b));
}

struct pair32 by_value_result(uint32_t a, uint32_t b, uint32_t c, uint32_t d, uint32_t e,
			      struct pair32 f, struct whole g)
{
	struct pair32 r = {
		.a = (int32_t)(a ^ b ^ (uint32_t)f.a),
		.b = c + d + e + f.b + (uint32_t)g.a,
	};

	return r;
}

int64_t by_value_union(union either a, union either b, union either c, union either d,
		       union either e, union either f, union either g)
{
	return (int64_t)a.u + b.s + c.u + d.s + e.u + f.s - (int64_t)g.u;
}

int32_t by_value_bits(struct bits a, struct bits b, struct bits c, struct bits d, struct bits e,
		      struct bits f, struct bits g)
{
	return (int32_t)a.low + b.high + (int32_t)c.low + d.high + (int32_t)e.low + f.high +
	       (int32_t)g.low - g.high;
}

/* The callee changes its own copy only. */
uint64_t by_value_modified(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e,
			   struct pair32 f, struct whole g, struct pair32 *out)
{
	f.a = (int32_t)((uint32_t)f.a + (uint32_t)a);
	f.b ^= (uint32_t)b;
	g.a += c + d + e;
	*out = f;
	return g.a;
}
