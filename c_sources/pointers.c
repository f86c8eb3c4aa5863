/* Pointers in registers and in slots; what they point to is compared too. */
#include <stdint.h>

void pointers_store_all(uint8_t *a, uint16_t *b, uint32_t *c, uint64_t *d, int8_t *e, int16_t *f,
			int32_t *g, int64_t *h)
{
	*a = (uint8_t)((uint64_t)*h + 1);
	*b = (uint16_t)(*g + 1u);
	*c = (uint32_t)(*f + 1);
	*d = (uint64_t)(*e + 1);
	*e = (int8_t)(*a ^ 0x55);
	*f = (int16_t)(*b ^ 0x5555);
	*g = (int32_t)(*c ^ 0x55555555);
	*h = (int64_t)(*d ^ 0x5555555555555555);
}

uint64_t pointers_sum(const uint64_t *a, const uint64_t *b, const uint64_t *c, const uint64_t *d,
		      const uint64_t *e, const uint64_t *f, const uint64_t *g, const uint64_t *h)
{
	return *a + 2 * *b + 3 * *c + 4 * *d + 5 * *e + 6 * *f + 7 * *g + 8 * *h;
}

/* Swap through slots only. */
void pointers_swap(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t *x,
		   uint64_t *y)
{
	uint64_t t = *x + (a ^ b ^ c ^ d ^ e);

	*x = *y;
	*y = t;
}

void pointers_rotate(uint32_t *a, uint32_t *b, uint32_t *c, uint32_t *d, uint32_t *e, uint32_t *f,
		     uint32_t *g)
{
	uint32_t t = *a;

	*a = *b;
	*b = *c;
	*c = *d;
	*d = *e;
	*e = *f;
	*f = *g;
	*g = t;
}

uint32_t pointers_array(uint32_t (*a)[4], int i, int j, int k, int l, uint16_t (*b)[8], int m)
{
	(*a)[i & 3] += (*b)[j & 7];
	(*b)[k & 7] = (uint16_t)(*a)[l & 3];
	return (*a)[m & 3] ^ (*b)[m & 7];
}

int64_t pointers_select(int64_t *a, int64_t *b, int64_t *c, int64_t *d, int64_t *e, int64_t *f,
			int64_t *g, unsigned int which)
{
	switch (which % 7) {
	case 0:
		return *a;
	case 1:
		return *b;
	case 2:
		return *c;
	case 3:
		return *d;
	case 4:
		return *e;
	case 5:
		return *f;
	default:
		return *g;
	}
}

/* A pointer in a register and one in a slot to the same kind of object: a read-modify-write each. */
int64_t pointers_accumulate(int64_t *sum, int32_t a, int32_t b, int32_t c, int32_t d, int32_t e,
			    int64_t *count)
{
	*sum = (int64_t)((uint64_t)*sum + (uint64_t)a + (uint64_t)b + (uint64_t)c + (uint64_t)d +
			 (uint64_t)e);
	*count = (int64_t)((uint64_t)*count + 5);
	return *sum ^ *count;
}

uint8_t pointers_bytes(const uint8_t *a, const uint8_t *b, uint8_t *c, uint8_t *d, int8_t *e,
		       int8_t *f, const int8_t *g, const uint8_t *h, uint8_t *i)
{
	*c = (uint8_t)(*a + *b);
	*d = (uint8_t)(*a - *b);
	*e = (int8_t)(*g >> 1);
	*f = (int8_t)(*h >> 1);
	*i = (uint8_t)(*c * *d);
	return (uint8_t)(*i ^ (uint8_t)*e);
}
