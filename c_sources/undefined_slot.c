/*
 * A parameter in a slot that its function never reads. clang 23.1.4 passes poison for it, and
 * writes the slot with a register that the call before has spoilt (known.toml,
 * clang-undefined-slot): Linux refuses to read that register.
 */

__attribute__((noinline)) long unread_slot(long a, long b, long c, long d, long e, long f, long g,
					   long h)
{
	__sync_fetch_and_add(&e, h);
	return f;
}

long undefined_slot(long a, long b, long c, long d, long e, long f)
{
	unread_slot(a, b, c, d, e, f, 0, 0);
	return unread_slot(a, b, c, d, e, !a, f, a);
}
