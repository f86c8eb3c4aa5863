/*
 * A struct of 12 bytes by value, inlined into a loop: its last four bytes do not exist. clang 23.1.4
 * at -O1 and -Os carries them from turn to turn, in a register that it gives no value to begin
 * with (known.toml, clang-undefined-phi): Linux refuses to read that register.
 */

struct wide {
	short a;
	unsigned int c, d;
};

static inline long is_zero(struct wide w)
{
	return w.a % 0xfffffffeu == 0;
}

__attribute__((noinline)) unsigned long undefined_phi(signed char a, unsigned short d,
						      unsigned long c, unsigned long e,
						      unsigned long f, unsigned long g)
{
	struct wide w = { a, 0, d };
	unsigned long n = 0;

	for (long i = 0; i < 2; i++)
		n -= is_zero(w);
	return n + c + e + f + g;
}
