/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Maps and helpers for functions under test that run natively too.
 *
 * For BPF this declares maps in .maps and calls helpers by their numbers; natively it brings the
 * helpers' bodies along (helpers.c). The maps of one vector are not there for the next. What goes
 * to a ring buffer is compared, in the order in which it was reserved.
 */
#ifndef CROSSCHECK_BPF_H
#define CROSSCHECK_BPF_H

enum { CROSSCHECK_HASH_MAP = 1, CROSSCHECK_ARRAY_MAP = 2, CROSSCHECK_RINGBUF_MAP = 27 };
enum { CROSSCHECK_ANY, CROSSCHECK_NOEXIST, CROSSCHECK_EXIST };

#ifdef __bpf__

#define CROSSCHECK_MAP __attribute__((section(".maps"), used, visibility("default")))

#define CROSSCHECK_ARRAY(name, value_type, entries) \
	struct { \
		int (*type)[CROSSCHECK_ARRAY_MAP]; \
		unsigned int *key; \
		value_type *value; \
		int (*max_entries)[entries]; \
	} name CROSSCHECK_MAP

#define CROSSCHECK_HASH(name, key_type, value_type, entries) \
	struct { \
		int (*type)[CROSSCHECK_HASH_MAP]; \
		key_type *key; \
		value_type *value; \
		int (*max_entries)[entries]; \
	} name CROSSCHECK_MAP

#define CROSSCHECK_RING(name, bytes) \
	struct { \
		int (*type)[CROSSCHECK_RINGBUF_MAP]; \
		int (*max_entries)[bytes]; \
	} name CROSSCHECK_MAP

static void *(*const bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*const bpf_map_update_elem)(void *map, const void *key, const void *value,
					 unsigned long long flags) = (void *)2;
static long (*const bpf_map_delete_elem)(void *map, const void *key) = (void *)3;
static unsigned long long (*const bpf_ktime_get_ns)(void) = (void *)5;
static unsigned int (*const bpf_get_prandom_u32)(void) = (void *)7;
static unsigned int (*const bpf_get_smp_processor_id)(void) = (void *)8;
static long (*const bpf_ringbuf_output)(void *ring, void *data, unsigned long long size,
					unsigned long long flags) = (void *)130;
static void *(*const bpf_ringbuf_reserve)(void *ring, unsigned long long size,
					  unsigned long long flags) = (void *)131;
static void (*const bpf_ringbuf_submit)(void *data, unsigned long long flags) = (void *)132;
static void (*const bpf_ringbuf_discard)(void *data, unsigned long long flags) = (void *)133;
static unsigned long long (*const bpf_ringbuf_query)(void *ring, unsigned long long flags) =
	(void *)134;

#else
#include "helpers.c"
#endif

#endif
