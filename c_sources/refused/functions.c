/*
 * refuse calls_global: global function global_six has 6 > 5 args, stack args not supported
 * refuse calls_thirteen: kernel supports at most 12 parameters, function thirteen has 13
 * refuse tail_call_beside: tail_calls are not allowed in programs with stack args
 * refuse tail_call_below: tail_calls are not allowed in programs with stack args
 */
#include "bpf.h"

__attribute__((noinline, visibility("default"))) long global_six(long a, long b, long c, long d,
								 long e, long f)
{
	return a + b + c + d + e + f;
}

SEC("syscall") int calls_global(long *ctx)
{
	return (int)global_six(ctx[0], ctx[1], ctx[2], ctx[3], ctx[4], ctx[5]);
}

STATIC long thirteen(long a, long b, long c, long d, long e, long f, long g, long h, long i, long j,
		     long k, long l, long m)
{
	return a - b - c - d - e - f - g - h - i - j - k - l - m;
}

/* In C the call would write an eighth slot first, which has a message of its own. */
ENTRY(calls_thirteen)
{
	asm volatile("r1 = 1; r2 = 2; r3 = 3; r4 = 4; r5 = 5;"
		     "*(u64 *)(r11 - 8) = 6; *(u64 *)(r11 - 16) = 7; *(u64 *)(r11 - 24) = 8;"
		     "*(u64 *)(r11 - 32) = 9; *(u64 *)(r11 - 40) = 10; *(u64 *)(r11 - 48) = 11;"
		     "*(u64 *)(r11 - 56) = 12;"
		     "call %[f]; r0 = 0; exit" ::[f] "i"(thirteen));
}

struct {
	int (*type)[3]; /* BPF_MAP_TYPE_PROG_ARRAY */
	int (*max_entries)[1];
	int (*key_size)[4];
	int (*value_size)[4];
} programs SEC(".maps");

#define tail_call(ctx, map, index) ((long (*)(void *, void *, unsigned int))12)(ctx, map, index)

STATIC long six(long a, long b, long c, long d, long e, long f)
{
	return a + b + c + d + e + f;
}

SEC("syscall") int tail_call_beside(long *ctx)
{
	long r = six(ctx[0], ctx[1], ctx[2], ctx[3], ctx[4], ctx[5]);

	tail_call(ctx, &programs, 0);
	return (int)r;
}

STATIC long six_and_tail_call(long *ctx, long b, long c, long d, long e, long f)
{
	tail_call(ctx, &programs, 0);
	return b + c + d + e + f;
}

SEC("syscall") int tail_call_below(long *ctx)
{
	return (int)six_and_tail_call(ctx, ctx[1], ctx[2], ctx[3], ctx[4], ctx[5]);
}
