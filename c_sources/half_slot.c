/*
 * A loop's flag in the lower half of a stack slot, and a variable in its upper half. clang 23.1.4
 * at -Os keeps in four bytes whether this is the first round, and lays them beside `x`, whose
 * address the call gets. Linux keeps one register's value for each slot of eight bytes, and
 * forgets it as the call writes the other half (known.toml, flag-in-half-a-slot).
 */

typedef unsigned char u8;
typedef unsigned long u64;

__attribute__((noinline)) u64 half_write(unsigned *a, u8 b, u8 c, u8 d, u8 e, u8 f)
{
	*a += b;
	return *a ? c ^ d : e ^ f;
}

u64 half_slot(unsigned a, u64 b, u64 c, u64 d, u64 e, u64 f)
{
	unsigned x = a;

	for (u64 i = 0; i < 2; i++) {
		u64 v = half_write(&x, b, c, d, e, f);

		b += v * b;
		c += v * c;
		d += v * d;
		e += v * e;
		f += v * f;
	}
	return x + b + c + d + e + f;
}
