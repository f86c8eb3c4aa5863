/*
 * Locks and timers of map values that Linux refuses, and one program that uses them well.
 *
 * refuse lock_kept: BPF_EXIT instruction in main prog cannot be used inside bpf_spin_lock-ed region
 * refuse lock_twice: function calls are not allowed while holding a lock
 * refuse lock_kept_on_a_path: bpf_spin_unlock without taking a lock
 * refuse lock_of_another: bpf_spin_unlock of different lock
 * refuse lock_elsewhere: off 0 doesn't point to 'struct bpf_spin_lock' that is at 4
 * refuse lock_read: bpf_spin_lock cannot be accessed directly by load/store
 * refuse call_with_a_lock: function calls are not allowed while holding a lock
 * refuse timer_written: bpf_timer cannot be accessed directly by load/store
 * refuse timer_elsewhere: off 0 doesn't point to 'struct bpf_timer' that is at 8
 * refuse timer_of_another_map: timer pointer in R1 map_uid=0 doesn't match map pointer in R2 map_uid=0
 * refuse timer_beyond: invalid access to map value, value_size=24 off=24 size=8
 */
#include "bpf.h"

#define PROGRAM(name) SEC("syscall") int name(void *ctx)
#define TYPE(field, kind) __typeof__(kind) *field
#define NUMBER(field, value) int (*field)[value]

struct bpf_spin_lock {
	unsigned int val;
};

struct bpf_timer {
	unsigned long long opaque[2];
} __attribute__((aligned(8)));

struct locked {
	unsigned int count;
	struct bpf_spin_lock lock;
};

struct timed {
	unsigned long long count;
	struct bpf_timer timer;
};

struct {
	NUMBER(type, 1);
	NUMBER(max_entries, 8);
	TYPE(key, int);
	TYPE(value, struct locked);
} locks SEC(".maps");

struct {
	NUMBER(type, 2);
	NUMBER(max_entries, 1);
	TYPE(key, int);
	TYPE(value, struct timed);
} timers SEC(".maps"), others SEC(".maps");

static void *(*const look_up)(void *map, const void *key) = (void *)1;
static long (*const ktime)(void) = (void *)5;
static long (*const lock)(void *lock) = (void *)93;
static long (*const unlock)(void *lock) = (void *)94;
static long (*const timer_init)(void *timer, void *map, unsigned long long flags) = (void *)169;
static long (*const timer_set_callback)(void *timer, void *callback) = (void *)170;

#define FOUND(variable, map)                        \
	int key_of_##variable = 0;                  \
	__typeof__(*map.value) *variable =          \
		look_up(&map, &key_of_##variable);  \
	if (!variable)                              \
	return 0

static int tick(void *map, int *key, struct timed *value)
{
	value->count++;
	return 0;
}

static int beyond(void *map, int *key, struct timed *value)
{
	(void)*(volatile unsigned long long *)&value[1].count;
	return 0;
}

PROGRAM(used_well)
{
	FOUND(first, locks);
	FOUND(second, timers);

	lock(&first->lock);
	first->count++;
	unlock(&first->lock);
	timer_init(&second->timer, &timers, 1);
	timer_set_callback(&second->timer, tick);
	return 0;
}

PROGRAM(lock_kept)
{
	FOUND(first, locks);

	lock(&first->lock);
	return 0;
}

PROGRAM(lock_twice)
{
	FOUND(first, locks);

	lock(&first->lock);
	lock(&first->lock);
	unlock(&first->lock);
	return 0;
}

PROGRAM(lock_kept_on_a_path)
{
	FOUND(first, locks);

	if (first->count & 1)
		lock(&first->lock);
	unlock(&first->lock);
	return 0;
}

PROGRAM(lock_of_another)
{
	FOUND(first, locks);
	FOUND(second, locks);

	lock(&first->lock);
	unlock(&second->lock);
	return 0;
}

PROGRAM(lock_elsewhere)
{
	FOUND(first, locks);

	lock(&first->count);
	unlock(&first->count);
	return 0;
}

PROGRAM(lock_read)
{
	FOUND(first, locks);

	(void)*(volatile unsigned int *)&first->lock.val;
	return 0;
}

PROGRAM(call_with_a_lock)
{
	FOUND(first, locks);

	lock(&first->lock);
	ktime();
	unlock(&first->lock);
	return 0;
}

PROGRAM(timer_written)
{
	FOUND(first, timers);

	*(volatile unsigned long long *)&first->timer.opaque[0] = 0;
	return 0;
}

PROGRAM(timer_elsewhere)
{
	FOUND(first, timers);

	timer_init(&first->count, &timers, 1);
	return 0;
}

PROGRAM(timer_of_another_map)
{
	FOUND(first, timers);

	timer_init(&first->timer, &others, 1);
	return 0;
}

PROGRAM(timer_beyond)
{
	FOUND(first, timers);

	timer_init(&first->timer, &timers, 1);
	timer_set_callback(&first->timer, beyond);
	return 0;
}
