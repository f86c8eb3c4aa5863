/* Pointers to structs with members of every kind, padding and bit-fields included. */
#include <stdbool.h>
#include <stdint.h>

struct point {
	int32_t x, y;
};

struct padded {
	uint8_t tag;
	uint64_t value;
	uint16_t tail;
};

struct flags {
	unsigned int mode : 3;
	unsigned int level : 5;
	int delta : 7;
	unsigned int rest : 17;
};

struct nested {
	struct point p;
	struct padded q[2];
	bool on;
};

typedef struct {
	uint16_t half[3];
	int8_t sign;
} anonymous_t;

int64_t structs_points(const struct point *a, const struct point *b, const struct point *c,
		       const struct point *d, const struct point *e, struct point *f,
		       struct point *g)
{
	f->x = (int32_t)((uint32_t)a->x + (uint32_t)b->x);
	f->y = (int32_t)((uint32_t)c->y - (uint32_t)d->y);
	g->x = e->x ^ f->x;
	g->y = e->y ^ f->y;
	return (int64_t)g->x - g->y;
}

void structs_padded(struct padded *a, uint8_t tag, uint64_t value, uint16_t tail, int which,
		    struct padded *b, struct padded *c)
{
	struct padded *p = which & 1 ? b : c;

	p->tag = tag;
	p->value = value + a->value;
	p->tail = tail;
	*a = *p;
}

uint32_t structs_bitfields(struct flags *a, uint32_t mode, uint32_t level, int32_t delta,
			   uint32_t rest, struct flags *b, const struct flags *c)
{
	a->mode = mode & 7;
	a->level = level & 31;
	a->delta = (int)(delta & 63);
	a->rest = rest & 0x1ffff;
	b->mode = c->level & 7;
	b->level = c->mode;
	b->delta = c->delta;
	b->rest = c->rest ^ a->rest;
	return a->mode + b->level + (uint32_t)b->delta + b->rest;
}

uint64_t structs_nested(struct nested *a, unsigned int i, uint64_t v, bool on, int32_t x,
			struct nested *b, unsigned int j)
{
	a->q[i & 1].value = v;
	a->on = on;
	b->p.x = x;
	b->q[j & 1] = a->q[i & 1];
	b->on = !a->on;
	return b->q[0].value + b->q[1].value + (uint64_t)(uint32_t)a->p.y;
}

int32_t structs_anonymous(anonymous_t *a, int32_t b, int32_t c, int32_t d, int32_t e,
			  anonymous_t *f, unsigned int i)
{
	f->half[i & 1] = (uint16_t)((uint32_t)b + (uint32_t)(c & 0xff));
	f->sign = (int8_t)(a->sign >> 1);
	a->half[0] = (uint16_t)(d ^ e);
	return f->half[0] + f->half[1] + f->half[2] + f->sign + a->half[0];
}

union word {
	uint32_t whole;
	uint16_t halves[2];
	uint8_t bytes[4];
};

uint32_t structs_union(union word *a, uint32_t b, uint32_t c, uint32_t d, uint32_t e,
		       union word *f, unsigned int i)
{
	a->whole = b ^ c;
	f->whole = a->whole + d;
	return a->bytes[i & 3] + f->halves[i >> 2 & 1] + e;
}

void structs_copy(struct nested *to, const struct nested *from, uint64_t a, uint64_t b, uint64_t c,
		  uint64_t d, const struct nested *other, bool which)
{
	*to = which ? *from : *other;
	to->q[0].value += a ^ b;
	to->q[1].value -= c ^ d;
}
