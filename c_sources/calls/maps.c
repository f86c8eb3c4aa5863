/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Many-argument functions between maps, helpers and ring buffers. */
#include <crosscheck/bpf.h>

#define noinline __attribute__((noinline))

typedef unsigned long long u64;

struct pair {
	u64 left, right;
};

CROSSCHECK_ARRAY(cells, u64, 4);
CROSSCHECK_HASH(table, u64, struct pair, 3);
CROSSCHECK_RING(ring, 4096);

static u64 counter = 7;
static u64 zeroed[3];
static const u64 weights[] = { 3, 5, 7, 11, 13, 17 };

u64 map_globals(u64 a, u64 b, u64 c, u64 d, u64 e, u64 f)
{
	counter += a * weights[f % 6];
	zeroed[b % 3] += counter;
	return counter + zeroed[0] * 3 + zeroed[1] * 5 + zeroed[2] * 7 + (c ^ d ^ e);
}

static noinline u64 add_cell(u64 a, u64 b, u64 c, u64 d, u64 e, unsigned int index, u64 amount)
{
	u64 *cell = bpf_map_lookup_elem(&cells, &index);

	if (!cell)
		return a ^ b ^ c ^ d ^ e;
	*cell += amount;
	return *cell + a;
}

u64 map_array(u64 a, u64 b, u64 c, u64 d, u64 e, u64 f)
{
	u64 sum = add_cell(a, b, c, d, e, a & 7, f);

	sum = sum * 31 + add_cell(b, c, d, e, f, b & 3, a);
	sum = sum * 31 + add_cell(c, d, e, f, a, b & 3, b);
	return sum * 31 + add_cell(d, e, f, a, b, 3, c);
}

static noinline long put(u64 key, u64 left, u64 right, u64 flags, u64 e, u64 f, u64 g)
{
	struct pair value = { .left = left + e, .right = right ^ f ^ g };

	return bpf_map_update_elem(&table, &key, &value, flags);
}

u64 map_hash(u64 a, u64 b, u64 c, u64 d, u64 e, u64 f, u64 g)
{
	long results[5];
	u64 key = c;
	struct pair *found;
	u64 sum = 0;

	results[0] = put(a, b, c, CROSSCHECK_ANY, d, e, f);
	results[1] = put(b, c, d, CROSSCHECK_NOEXIST, e, f, g);
	results[2] = put(c, d, e, CROSSCHECK_EXIST, f, g, a);
	results[3] = put(g, e, f, CROSSCHECK_ANY, g, a, b);
	results[4] = bpf_map_delete_elem(&table, &key);
	results[4] += put(f, f, g, CROSSCHECK_ANY, a, b, c) * 3;
	found = bpf_map_lookup_elem(&table, &key);
	if (found)
		sum += found->left + found->right * 3;
	key = a;
	found = bpf_map_lookup_elem(&table, &key);
	if (found)
		sum += found->left * 5 + found->right * 7;
	sum = sum * 3 + results[0];
	sum = sum * 3 + results[1];
	sum = sum * 3 + results[2];
	sum = sum * 3 + results[3];
	return sum * 3 + results[4];
}

u64 helper_values(u64 a, u64 b, u64 c, u64 d, u64 e, u64 f)
{
	return (a + bpf_ktime_get_ns()) ^ (b * bpf_get_prandom_u32()) ^ (c - d) ^
	       (e + f + bpf_get_smp_processor_id());
}

static noinline long write_out(u64 a, u64 b, u64 c, u64 d, u64 e, u64 f, u64 g)
{
	u64 record[3] = { a ^ b, c + d, e - f };

	return bpf_ringbuf_output(&ring, record, sizeof(record), g);
}

u64 ring_output(u64 a, u64 b, u64 c, u64 d, u64 e, u64 f)
{
	u64 sum = write_out(a, b, c, d, e, f, 0);

	sum = sum * 7 + write_out(f, e, d, c, b, a, 1);
	sum = sum * 7 + write_out(a, c, e, b, d, f, a & 7);
	return sum * 7 + bpf_ringbuf_query(&ring, b & 3);
}

u64 ring_reserve(u64 a, u64 b, u64 c, u64 d, u64 e, u64 f)
{
	struct pair *first = bpf_ringbuf_reserve(&ring, sizeof(*first), 0);
	u64 *second;

	if (!first)
		return 1;
	first->left = a + b;
	first->right = c ^ d;
	second = bpf_ringbuf_reserve(&ring, sizeof(*second), 0);
	if (!second) {
		bpf_ringbuf_discard(first, 0);
		return 2;
	}
	*second = e * f;
	if (a & 1)
		bpf_ringbuf_discard(first, 0);
	else
		bpf_ringbuf_submit(first, 0);
	bpf_ringbuf_submit(second, 0);
	return bpf_ringbuf_query(&ring, 0);
}

u64 ring_fills(u64 a, u64 b, u64 c, u64 d, u64 e, u64 f)
{
	u64 wide[24] = { a, b, c, d, e, f };
	u64 failed = 0;

	for (u64 i = 0; i < 24; i++) {
		wide[6] = i;
		if (bpf_ringbuf_output(&ring, wide, sizeof(wide), 0))
			failed = failed * 3 + i;
	}
	return failed;
}
