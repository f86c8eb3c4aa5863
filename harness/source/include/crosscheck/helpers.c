/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * The kernel's helpers, natively. For the native leg they are part of the module under test: maps
 * in its own data, which every vector finds as new, and ring buffers behind the vector's context.
 * With CROSSCHECK_EMULATED they are the kernel of the jit leg, which says where all that lies.
 */

/* What a vector has to itself; the legs know its size, and write the first word. */
struct crosscheck_side {
	unsigned int random; /* this vector's */
	unsigned int used; /* bytes of records */
	unsigned char records[16368]; /* headers and data, each at a multiple of 8 */
};

struct crosscheck_record {
	unsigned int map; /* FNV-1a of its name */
	unsigned int size;
	unsigned int state; /* 0: discarded or reserved, 1: submitted */
	unsigned int space;
	unsigned char data[];
};

struct crosscheck_map {
	const char *name;
	unsigned int type, key_size, value_size, max_entries;
	unsigned int used; /* entries of a hash map, bytes of a ring buffer */
	unsigned int key_space, value_space; /* rounded up to 8 */
	unsigned char *values; /* a hash map: 8 bytes that say whether it is there, key and value */
};

#ifdef CROSSCHECK_EMULATED

#define CROSSCHECK_HELPER __attribute__((noinline))

enum { CROSSCHECK_HASH_MAP = 1, CROSSCHECK_ARRAY_MAP = 2, CROSSCHECK_RINGBUF_MAP = 27 };
enum { CROSSCHECK_ANY, CROSSCHECK_NOEXIST, CROSSCHECK_EXIST };

/* The leg's, which defines them (harness/legs/jit.py). A program has only handles of its maps. */
extern volatile unsigned long long crosscheck_index; /* the vector */
extern volatile unsigned long long crosscheck_stride; /* bytes from one vector's side to the next */
extern struct crosscheck_map *volatile crosscheck_maps; /* of the program */
extern unsigned char crosscheck_sides[], crosscheck_handles[];

#define CROSSCHECK_SIDE \
	((struct crosscheck_side *)(crosscheck_sides + crosscheck_index * crosscheck_stride))
#define CROSSCHECK_ROOM (crosscheck_stride - 8)

static struct crosscheck_map *crosscheck_map_at(void *handle)
{
	return crosscheck_maps + ((unsigned char *)handle - crosscheck_handles) / 256;
}

#else

#define CROSSCHECK_HELPER static __attribute__((noinline))
#define CROSSCHECK_SIDE crosscheck_side
#define CROSSCHECK_ROOM sizeof(crosscheck_side->records)
#define CROSSCHECK_SPACE(type) ((sizeof(type) + 7) & ~7ull)

#define CROSSCHECK_ARRAY(map, value_type, entries) \
	static unsigned char map##_values[CROSSCHECK_SPACE(value_type) * (entries)] \
		__attribute__((aligned(8))); \
	static struct crosscheck_map map = { \
		#map, CROSSCHECK_ARRAY_MAP, 4, sizeof(value_type), entries, \
		0, 8, CROSSCHECK_SPACE(value_type), map##_values, \
	}

#define CROSSCHECK_HASH(map, key_type, value_type, entries) \
	static unsigned char map##_values \
		[(8 + CROSSCHECK_SPACE(key_type) + CROSSCHECK_SPACE(value_type)) * (entries)] \
		__attribute__((aligned(8))); \
	static struct crosscheck_map map = { \
		#map, CROSSCHECK_HASH_MAP, sizeof(key_type), sizeof(value_type), entries, \
		0, CROSSCHECK_SPACE(key_type), CROSSCHECK_SPACE(value_type), map##_values, \
	}

#define CROSSCHECK_RING(map, bytes) \
	static struct crosscheck_map map = { #map, CROSSCHECK_RINGBUF_MAP, 0, 0, bytes, 0, 0, 0, 0 }

static struct crosscheck_side *crosscheck_side;

/* By its name the native leg knows that room is wanted behind each context. */
int crosscheck_wants_side(void)
{
	return sizeof(struct crosscheck_side);
}

static struct crosscheck_map *crosscheck_map_at(void *map)
{
	return map;
}

#endif

static void crosscheck_copy(unsigned char *to, const unsigned char *from, unsigned long long size)
{
	for (unsigned long long at = 0; at < size; at++)
		to[at] = from[at];
}

static _Bool crosscheck_same(const unsigned char *a, const unsigned char *b, unsigned int size)
{
	for (unsigned int at = 0; at < size; at++)
		if (a[at] != b[at])
			return 0;
	return 1;
}

/* The entry of a hash map that holds the key; with none, a free one if asked for. */
static unsigned char *crosscheck_entry(struct crosscheck_map *map, const void *key, _Bool free)
{
	unsigned long long size = 8 + map->key_space + map->value_space;

	for (unsigned int at = 0; at < map->max_entries; at++) {
		unsigned char *entry = map->values + at * size;

		if (free ? !*entry : *entry && crosscheck_same(entry + 8, key, map->key_size))
			return entry;
	}
	return 0;
}

CROSSCHECK_HELPER void *bpf_map_lookup_elem(void *target, const void *key)
{
	struct crosscheck_map *map = crosscheck_map_at(target);
	unsigned char *entry;

	if (map->type == CROSSCHECK_ARRAY_MAP) {
		unsigned int index;

		crosscheck_copy((unsigned char *)&index, key, sizeof(index));
		if (index >= map->max_entries)
			return 0;
		return map->values + (unsigned long long)index * map->value_space;
	}
	entry = crosscheck_entry(map, key, 0);
	return entry ? entry + 8 + map->key_space : 0;
}

CROSSCHECK_HELPER long bpf_map_update_elem(void *target, const void *key,
					   const void *value,
					   unsigned long long flags)
{
	struct crosscheck_map *map = crosscheck_map_at(target);
	unsigned char *found = bpf_map_lookup_elem(target, key);

	if (flags > CROSSCHECK_EXIST)
		return -22;
	if (found && flags == CROSSCHECK_NOEXIST)
		return -17;
	if (!found && map->type == CROSSCHECK_ARRAY_MAP)
		return -7;
	if (!found && flags == CROSSCHECK_EXIST)
		return -2;
	if (!found) {
		unsigned char *entry = crosscheck_entry(map, key, 1);

		if (!entry)
			return -7;
		*entry = 1;
		crosscheck_copy(entry + 8, key, map->key_size);
		found = entry + 8 + map->key_space;
	}
	crosscheck_copy(found, value, map->value_size);
	return 0;
}

CROSSCHECK_HELPER long bpf_map_delete_elem(void *target, const void *key)
{
	struct crosscheck_map *map = crosscheck_map_at(target);
	unsigned char *entry;

	if (map->type == CROSSCHECK_ARRAY_MAP)
		return -22;
	entry = crosscheck_entry(map, key, 0);
	if (!entry)
		return -2;
	*entry = 0;
	return 0;
}

CROSSCHECK_HELPER unsigned long long bpf_ktime_get_ns(void)
{
	return 0x0123456789abull;
}

CROSSCHECK_HELPER unsigned int bpf_get_prandom_u32(void)
{
	return CROSSCHECK_SIDE->random;
}

CROSSCHECK_HELPER unsigned int bpf_get_smp_processor_id(void)
{
	return 0;
}

CROSSCHECK_HELPER void *bpf_ringbuf_reserve(void *target, unsigned long long size,
					    unsigned long long flags)
{
	struct crosscheck_map *map = crosscheck_map_at(target);
	struct crosscheck_side *side = CROSSCHECK_SIDE;
	struct crosscheck_record *record = (void *)(side->records + side->used);
	unsigned long long space = (size + 7) & ~7ull;
	unsigned int hash = 0x811c9dc5;

	/* a record takes 8 bytes and its own, and one byte of the buffer stays free */
	if (flags || size > 0x3fffffff || map->used + ((size + 15) & ~7ull) > map->max_entries - 1)
		return 0;
	if (side->used + sizeof(*record) + space > CROSSCHECK_ROOM)
		__builtin_trap(); /* more than the leg has room for */
	for (const char *at = map->name; *at; at++)
		hash = (hash ^ (unsigned char)*at) * 0x01000193u;
	map->used += (size + 15) & ~7ull;
	side->used += sizeof(*record) + space;
	record->map = hash;
	record->size = size;
	record->state = 0;
	record->space = space;
	return record->data;
}

CROSSCHECK_HELPER void bpf_ringbuf_submit(void *data, unsigned long long flags)
{
	struct crosscheck_record *record =
		(void *)((unsigned char *)data - sizeof(struct crosscheck_record));

	(void)flags;
	record->state = 1;
}

CROSSCHECK_HELPER void bpf_ringbuf_discard(void *data, unsigned long long flags)
{
	(void)data;
	(void)flags;
}

CROSSCHECK_HELPER long bpf_ringbuf_output(void *ring, void *data,
					  unsigned long long size,
					  unsigned long long flags)
{
	unsigned char *to;

	if (flags & ~3ull)
		return -22;
	to = bpf_ringbuf_reserve(ring, size, 0);
	if (!to)
		return -11;
	crosscheck_copy(to, data, size);
	bpf_ringbuf_submit(to, 0);
	return 0;
}

CROSSCHECK_HELPER unsigned long long bpf_ringbuf_query(void *ring,
						       unsigned long long flags)
{
	struct crosscheck_map *map = crosscheck_map_at(ring);

	if (flags == 0 || flags == 3) /* available data, the producer's position */
		return map->used;
	return flags == 1 ? map->max_entries : 0;
}
