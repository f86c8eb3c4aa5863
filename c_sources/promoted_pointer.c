/*
 * A pointer that its function only reads through. clang 23.1.4 at -O3 passes what it points to in
 * its place when it knows all callers (argument promotion), so that arguments behind it move to
 * other slots and one more slot is read; BTF still has the pointer (known.toml,
 * clang-btf-keeps-promoted-pointer).
 */

struct promoted_pair {
	long x, y;
};

long promoted_pointer(long a, const struct promoted_pair *p, long c, long d, long e, long f, long g)
{
	return a ^ p->x ^ p->y ^ c ^ d ^ e ^ f ^ g;
}
