/* Read-only tables indexed by arguments, and switches that may become tables. */
#include <stdint.h>

static const uint8_t bytes[16] = { 3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3 };
static const int16_t shorts[8] = { -1, 2, -3, 4, -32768, 32767, 0, 7 };
static const uint64_t words[4] = { 0x0123456789abcdef, 0xfedcba9876543210, 0, ~0ull };

struct entry {
	uint32_t key;
	int8_t sign;
	uint64_t value;
};

static const struct entry entries[4] = {
	{ 1, -1, 0x100000000 },
	{ 2, 1, 42 },
	{ 0x80000000, -128, 7 },
	{ 0xffffffff, 127, 0xdeadbeefcafe },
};

uint64_t table_bytes(uint64_t a, uint32_t b, uint32_t c, uint32_t d, uint32_t e, uint32_t f,
		     uint32_t g)
{
	return a + bytes[b & 15] + bytes[c & 15] + bytes[d & 15] + bytes[e & 15] +
	       bytes[f & 15] * 3u + bytes[g & 15] * 5u;
}

int64_t table_mixed(uint32_t a, uint32_t b, uint32_t c, uint32_t d, uint32_t e, uint32_t f,
		    uint32_t g, uint32_t h)
{
	return (int64_t)(words[a & 3] ^ words[f & 3]) + shorts[b & 7] + shorts[g & 7] +
	       bytes[c & 15] + bytes[h & 15] + (int64_t)(d ^ e);
}

uint64_t table_structs(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint32_t f,
		       uint32_t g)
{
	const struct entry *x = &entries[f & 3], *y = &entries[g & 3];

	return (a ^ b ^ c ^ d ^ e) + x->key + (uint64_t)(int64_t)y->sign + x->value - y->value;
}

uint32_t table_switch(uint32_t a, uint32_t b, uint32_t c, uint32_t d, uint32_t e, uint32_t f,
		      uint32_t which)
{
	switch (which % 9) {
	case 0:
		return a;
	case 1:
		return b + 17;
	case 2:
		return c ^ 0x5a5a;
	case 3:
		return d * 3;
	case 4:
		return e >> 3;
	case 5:
		return f << 4;
	case 6:
		return a + f;
	case 7:
		return b - e;
	default:
		return 0xffffffff;
	}
}

uint32_t table_string(uint32_t a, uint32_t b, uint32_t c, uint32_t d, uint32_t e, uint32_t f,
		      uint32_t g)
{
	const char *text = "many-arguments!";

	return a + b + c + d + e + (uint32_t)text[f & 15] * 7 + (uint32_t)text[g & 7];
}
