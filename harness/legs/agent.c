/*
 * The agent: what of the `kernel` leg runs beside the kernel, as /init of a guest or as a
 * child of ours. It serves requests until its channel ends.
 *
 * It knows next to nothing of bpf(2). A request is a block of memory and steps to take on
 * it; the host fills in every attribute. What only the agent knows, addresses and file
 * descriptors, patches put into the memory before a step. The reply is the result of each
 * step and some ranges of the memory. Nothing outlives a request but loaded modules.
 *
 * It needs no C library, hence no headers but the compiler's own: it is compiled with
 * whatever clang compiles everything else, and linked by guest.py.
 */

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long u64;
typedef int s32;
typedef long s64;

/* --- system calls: arch/x86/entry/syscalls/syscall_64.tbl --- */

#define SYS_read 0
#define SYS_write 1
#define SYS_open 2
#define SYS_close 3
#define SYS_mmap 9
#define SYS_munmap 11
#define SYS_rt_sigaction 13
#define SYS_madvise 28
#define SYS_nanosleep 35
#define SYS_setitimer 38
#define SYS_exit 60
#define SYS_mkdir 83
#define SYS_mount 165
#define SYS_reboot 169
#define SYS_init_module 175
#define SYS_bpf 321

#define EINTR 4
#define EAGAIN 11
#define EINVAL 22
#define ECANCELED 125
#define SKIPPED (-ECANCELED)

static s64 syscall(s64 number, u64 a, u64 b, u64 c, u64 d, u64 e, u64 f)
{
	s64 result;
	register u64 r10 __asm__("r10") = d;
	register u64 r8 __asm__("r8") = e;
	register u64 r9 __asm__("r9") = f;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return result;
}

#define call1(n, a) syscall(n, (u64)(a), 0, 0, 0, 0, 0)
#define call2(n, a, b) syscall(n, (u64)(a), (u64)(b), 0, 0, 0, 0)
#define call3(n, a, b, c) syscall(n, (u64)(a), (u64)(b), (u64)(c), 0, 0, 0)

/* The compiler may call these on its own. */
void *memcpy(void *to, const void *from, u64 size)
{
	void *at = to;

	__asm__ volatile("rep movsb" : "+D"(at), "+S"(from), "+c"(size) : : "memory");
	return to;
}

void *memset(void *to, int value, u64 size)
{
	void *at = to;

	__asm__ volatile("rep stosb" : "+D"(at), "+c"(size) : "a"(value) : "memory");
	return to;
}

/* --- the channel --- */

#define MAGIC 0x41474343 /* "CCGA" */
#define VERSION 1

static s32 channel_in, channel_out;
static s32 is_init;

static void die(int status)
{
	if (is_init) /* power off, which ends the guest: include/uapi/linux/reboot.h */
		syscall(SYS_reboot, 0xfee1dead, 672274793, 0x4321fedc, 0, 0, 0);
	call1(SYS_exit, status);
	__builtin_trap();
}

static void receive(void *to, u64 size)
{
	u8 *at = to;

	while (size) {
		s64 got = call3(SYS_read, channel_in, at, size);

		if (got == -EINTR)
			continue;
		if (got <= 0)
			die(got ? 1 : 0);
		at += got;
		size -= got;
	}
}

static void send(const void *from, u64 size)
{
	const u8 *at = from;

	while (size) {
		s64 put = call3(SYS_write, channel_out, at, size);

		if (put == -EINTR)
			continue;
		if (put <= 0)
			die(1);
		at += put;
		size -= put;
	}
}

/* --- requests: the layout is guest.py's, too --- */

struct request {
	u32 magic;
	u32 number; /* comes back in the reply */
	u32 memory; /* bytes: size of the block */
	u32 data; /* bytes of it that the request brings; the rest is zero */
	u32 steps, patches, ranges, slots;
	u32 patience; /* ms that one step may take before a signal interrupts it */
	u32 reserved;
};

/* What a step asks of the slot `subject`; what ran out of time is not tried in another way. */
enum { ALWAYS, IF_OK, IF_FAILED };
enum { BPF, RUN, READ, WRITE, MODULE, MAP, RING }; /* what a step does; a, b, c as below */

struct step {
	u32 op;
	u32 slot; /* where its result goes, unless it is skipped */
	u32 condition, subject;
	u32 first_patch, patches;
	u32 a, b, c, d;
};

enum { ADDRESS, DESCRIPTOR }; /* kinds of patches */

struct patch {
	u32 at; /* offset in memory */
	u32 kind; /* ADDRESS: 8 bytes, of the offset `value`; DESCRIPTOR: 4, of the slot `value` */
	u32 value;
	u32 reserved;
};

struct range {
	u32 at, limit; /* offset and most bytes to send */
	u32 length_at; /* offset of the u32 that counts its elements */
	u32 scale; /* bytes of an element; 0: the range is a string and ends at its zero byte */
	u32 slot; /* the range is empty where this slot, unless it is ANY, holds an error */
};

#define ANY 0xffffffff

struct reply {
	u32 magic;
	u32 number;
	u32 steps, ranges;
	u64 bytes; /* of all ranges */
};

/* A batch of BPF_PROG_TEST_RUN: op RUN has its offset in `a`. */
struct run {
	u32 attr, size; /* of the attribute, which is complete but for each vector's own */
	u32 packet; /* vectors are packets (data_in, data_out), not contexts (ctx_in) */
	u32 count;
	u32 vectors; /* offset of the first struct vector */
	u32 resets, reset_count; /* system calls before each vector: struct reset */
	u32 room; /* packets: bytes at `out` */
};

struct vector {
	u32 in, size; /* where its bytes are; a context is changed in place */
	u32 out, out_size; /* packets: where they come back */
	s32 error; /* 0 or -errno */
	u32 result;
};

struct reset {
	u32 command; /* of bpf(2); CLEAR: delete every element */
	u32 attr, size;
};

#define CLEAR 0xffff
#define BPF_MAP_DELETE_ELEM 3
#define BPF_MAP_GET_NEXT_KEY 4
#define BPF_PROG_TEST_RUN 10

struct test_attr { /* union bpf_attr, member `test`: include/uapi/linux/bpf.h */
	u32 prog_fd, retval, data_size_in, data_size_out;
	u64 data_in, data_out;
	u32 repeat, duration, ctx_size_in, ctx_size_out;
	u64 ctx_in, ctx_out;
	u32 flags, cpu, batch_size;
};

struct element_attr { /* the same for BPF_MAP_*_ELEM */
	u32 map_fd;
	u64 key, value, flags;
};

static u8 *memory;
static u64 memory_size;
static s64 *slots;

static void *at(u32 offset)
{
	return memory + offset;
}

static void clear(struct element_attr *attr, u32 size)
{
	u64 key = attr->key;
	u64 left = 1 << 20;

	while (left--) {
		attr->key = 0; /* the first key goes to `value`, as next_key */
		attr->value = key;
		if (call3(SYS_bpf, BPF_MAP_GET_NEXT_KEY, attr, size))
			break;
		attr->key = key;
		attr->value = 0;
		if (call3(SYS_bpf, BPF_MAP_DELETE_ELEM, attr, size))
			break;
	}
	attr->key = key;
}

static s64 run_batch(const struct run *run)
{
	struct test_attr *attr = at(run->attr);
	struct vector *vector = at(run->vectors);
	struct reset *resets = at(run->resets);
	u32 i, j;

	for (i = 0; i < run->count; i++, vector++) {
		for (j = 0; j < run->reset_count; j++) {
			void *what = at(resets[j].attr);

			if (resets[j].command == CLEAR)
				clear(what, resets[j].size);
			else
				call3(SYS_bpf, resets[j].command, what, resets[j].size);
		}
		if (run->packet) {
			attr->data_in = (u64)at(vector->in);
			attr->data_size_in = vector->size;
			attr->data_out = (u64)at(vector->out);
			attr->data_size_out = run->room;
		} else {
			attr->ctx_in = vector->size ? (u64)at(vector->in) : 0;
			attr->ctx_size_in = vector->size;
		}
		attr->retval = 0;
		attr->duration = 0;
		vector->error = call3(SYS_bpf, BPF_PROG_TEST_RUN, attr, run->size);
		vector->result = attr->retval;
		vector->out_size = run->packet ? attr->data_size_out : vector->size;
	}
	return 0;
}

static s64 read_file(const char *path, u8 *to, u32 limit, u32 *length)
{
	s64 fd = call3(SYS_open, path, 0, 0);
	u32 done = 0;
	s64 got;

	if (fd < 0)
		return fd;
	do {
		u32 most = limit - done;

		/* some files of /proc want a buffer of the kernel's as large as ours */
		got = call3(SYS_read, fd, to + done, most < 65536 ? most : 65536);
		if (got > 0)
			done += got;
	} while (got > 0 && done < limit);
	call1(SYS_close, fd);
	*length = done;
	return got < 0 ? got : 0;
}

static s64 write_file(const char *path, const u8 *from, u32 size)
{
	s64 fd = call3(SYS_open, path, 1, 0);
	s64 put;

	if (fd < 0)
		return fd;
	put = call3(SYS_write, fd, from, size);
	call1(SYS_close, fd);
	return put < 0 ? put : 0;
}

struct area {
	u64 address; /* where it has to be; 0: anywhere */
	u64 size; /* bytes */
};

/*
 * Map the arena in slot `a`, as the struct area at offset `b` says, and copy what is at offset
 * `c`, `d` bytes, to the pages at its end. The result is its address.
 */
static s64 map_arena(const struct step *step)
{
	const struct area *area = at(step->b);
	u64 pages = (step->d + 4095) & ~4095ul;
	s64 place;

	if (slots[step->a] < 0)
		return SKIPPED;
	/* read and write; shared, and at that address only */
	place = syscall(SYS_mmap, area->address, area->size, 3, area->address ? 0x11 : 1,
			slots[step->a], 0);
	if (place < 0 && place > -4096)
		return place;
	if (step->d && pages <= area->size)
		memcpy((u8 *)place + area->size - pages, at(step->c), step->d);
	return place;
}

/*
 * Copy what lies in the ring buffer in slot `a`, of `b` bytes, to offset `c`, and how much it
 * is to offset `d`. Behind the consumer's page, which is not looked at, lie the producer's
 * and the data (Documentation/bpf/ringbuf.rst).
 */
static s64 read_ring(const struct step *step)
{
	u64 size = 4096 + (u64)step->b;
	u64 produced;
	s64 place;

	if (slots[step->a] < 0)
		return SKIPPED;
	/* read, shared */
	place = syscall(SYS_mmap, 0, size, 1, 1, slots[step->a], 4096);
	if (place < 0 && place > -4096)
		return place;
	produced = *(volatile u64 *)place;
	if (produced > step->b)
		produced = step->b;
	memcpy(at(step->c), (u8 *)place + 4096, produced);
	*(u32 *)at(step->d) = (u32)produced;
	call2(SYS_munmap, place, size);
	return 0;
}

static s64 take(const struct step *step, const struct patch *patches)
{
	u32 i;

	if (step->condition == IF_OK && slots[step->subject] < 0)
		return SKIPPED;
	if (step->condition == IF_FAILED &&
	    (slots[step->subject] >= 0 || slots[step->subject] == -EAGAIN))
		return SKIPPED;
	for (i = 0; i < step->patches; i++) {
		const struct patch *patch = &patches[step->first_patch + i];

		if (patch->kind == ADDRESS) {
			*(u64 *)at(patch->at) = (u64)at(patch->value);
		} else {
			if (slots[patch->value] < 0)
				return SKIPPED;
			*(u32 *)at(patch->at) = (u32)slots[patch->value];
		}
	}
	switch (step->op) {
	case BPF:
		return call3(SYS_bpf, step->a, at(step->b), step->c);
	case RUN:
		return run_batch(at(step->a));
	case READ: /* file named at a; b bytes go to c, their number to d */
		return read_file(at(step->a), at(step->c), step->b, at(step->d));
	case WRITE: /* file named at a; b bytes from c */
		return write_file(at(step->a), at(step->c), step->b);
	case MODULE: /* b bytes at c */
		return call3(SYS_init_module, at(step->c), step->b, "");
	case MAP:
		return map_arena(step);
	case RING:
		return read_ring(step);
	}
	return -EINVAL;
}

/* --- time: a signal makes the verifier give up with EAGAIN --- */

struct action {
	void (*handler)(int);
	u64 flags;
	void (*restorer)(void);
	u64 mask;
};

static void alarm_rang(int number)
{
	(void)number;
}

__attribute__((naked)) static void restorer(void)
{
	__asm__ volatile("mov $15, %eax; syscall"); /* rt_sigreturn */
}

static void set_alarm(u32 milliseconds)
{
	/* the interval, in case that the first signal comes before the call */
	u64 timer[4] = { milliseconds / 1000, milliseconds % 1000 * 1000,
			 milliseconds / 1000, milliseconds % 1000 * 1000 };

	call3(SYS_setitimer, 0, timer, 0);
}

static void catch_alarm(void)
{
	struct action action = { alarm_rang, 0x04000000 /* SA_RESTORER */, restorer, 0 };

	syscall(SYS_rt_sigaction, 14, (u64)&action, 0, 8, 0, 0);
}

/* --- serving --- */

static u8 *take_pages(u64 size)
{
	/* read and write; private, anonymous, without reserve */
	s64 place = syscall(SYS_mmap, 0, size + 4096, 3, 0x4022, ~0ul, 0);

	if (place < 0 && place > -4096)
		die(2);
	/* MADV_NOHUGEPAGE: little of it is touched, and a huge page takes ms to clear */
	call3(SYS_madvise, place, size + 4096, 15);
	return (u8 *)place;
}

static u32 length_of(const struct range *range)
{
	u64 length;

	if (range->slot != ANY && slots[range->slot] < 0)
		return 0;
	if (!range->scale) {
		for (length = 0; length < range->limit; length++)
			if (!*(u8 *)at(range->at + length))
				break;
		return length;
	}
	length = (u64)*(u32 *)at(range->length_at) * range->scale;
	return length < range->limit ? length : range->limit;
}

static void serve(void)
{
	struct request request;
	struct reply reply = { .magic = MAGIC };
	struct step *steps;
	struct patch *patches;
	struct range *ranges;
	s64 *results;
	u32 *lengths;
	u64 size;
	u8 *tables;
	u32 i;

	receive(&request, sizeof(request));
	if (request.magic != MAGIC)
		die(3);
	size = (u64)request.steps * (sizeof(*steps) + sizeof(*results)) +
	       (u64)request.patches * sizeof(*patches) +
	       (u64)request.ranges * (sizeof(*ranges) + sizeof(*lengths)) +
	       (u64)request.slots * sizeof(*slots);
	tables = take_pages(size);
	memory_size = request.memory;
	memory = take_pages(memory_size);
	slots = (s64 *)tables;
	results = slots + request.slots;
	steps = (struct step *)(results + request.steps);
	patches = (struct patch *)(steps + request.steps);
	ranges = (struct range *)(patches + request.patches);
	lengths = (u32 *)(ranges + request.ranges);
	receive(steps, (u8 *)lengths - (u8 *)steps);
	receive(memory, request.data);

	for (i = 0; i < request.slots; i++)
		slots[i] = -1;
	for (i = 0; i < request.steps; i++) {
		if (steps[i].op == BPF)
			set_alarm(request.patience);
		results[i] = take(&steps[i], patches);
		if (steps[i].op == BPF)
			set_alarm(0);
		if (results[i] != SKIPPED)
			slots[steps[i].slot] = results[i];
	}
	/* Whatever was opened goes, a program before its maps. */
	for (i = request.steps; i--;) {
		if (steps[i].op == BPF && results[i] > 2)
			call1(SYS_close, results[i]);
		else if (steps[i].op == MAP && results[i] > 0)
			call2(SYS_munmap, results[i], ((struct area *)at(steps[i].b))->size);
	}

	reply.number = request.number;
	reply.steps = request.steps;
	reply.ranges = request.ranges;
	for (i = 0; i < request.ranges; i++) {
		lengths[i] = length_of(&ranges[i]);
		reply.bytes += lengths[i];
	}
	send(&reply, sizeof(reply));
	send(results, request.steps * sizeof(*results));
	send(lengths, request.ranges * sizeof(*lengths));
	for (i = 0; i < request.ranges; i++)
		send(at(ranges[i].at), lengths[i]);
	syscall(SYS_munmap, (u64)memory, memory_size + 4096, 0, 0, 0, 0);
	syscall(SYS_munmap, (u64)tables, size + 4096, 0, 0, 0, 0);
}

static void mount(const char *type, const char *place)
{
	call2(SYS_mkdir, place, 0755);
	syscall(SYS_mount, (u64)type, (u64)place, (u64)type, 0, 0, 0);
}

static void become_init(void)
{
	u64 moment[2] = { 0, 1000000 };
	s64 port = -1;
	int tries;

	is_init = 1;
	mount("devtmpfs", "/dev");
	mount("proc", "/proc");
	mount("sysfs", "/sys");
	mount("bpf", "/sys/fs/bpf");
	/* The port appears when the driver has asked the host for it. */
	for (tries = 0; port < 0 && tries < 5000; tries++) {
		port = call3(SYS_open, "/dev/vport0p1", 2, 0);
		if (port < 0)
			call2(SYS_nanosleep, moment, 0);
	}
	if (port < 0)
		die(4);
	channel_in = channel_out = port;
}

__attribute__((used)) static void begin(u64 *stack)
{
	struct reply hello = { .magic = MAGIC, .number = VERSION };
	s64 argc = stack[0];

	/* /init has no arguments of ours; a child of ours has one, and its channel is fd 0 */
	if (argc > 1 && ((char *)stack[2])[0] == '-')
		channel_in = channel_out = 0;
	else
		become_init();
	catch_alarm();
	send(&hello, sizeof(hello));
	for (;;)
		serve();
}

__attribute__((naked, used)) void _start(void)
{
	__asm__ volatile("xor %ebp, %ebp; mov %rsp, %rdi; and $-16, %rsp; call begin; hlt");
}
