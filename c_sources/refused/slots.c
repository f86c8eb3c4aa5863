/*
 * refuse main_has_no_slots: invalid read from stack arg off 8 depth 0
 * refuse slot_too_far: invalid read from stack arg off 24 depth 16
 * refuse read_after_store: r11 load must be before any r11 store or call insn
 * refuse read_after_call: r11 load must be before any r11 store or call insn
 * refuse not_written: callee expects 7 args, stack arg2 is not initialized
 * refuse not_written_on_a_path: callee expects 7 args, stack arg1 is not initialized
 * refuse forgotten_by_a_call: callee expects 7 args, stack arg1 is not initialized
 * refuse too_many_written: func#0 writes 3 stack arg slots, but calls only require 2
 */
#include "bpf.h"

STATIC long seven(long a, long b, long c, long d, long e, long f, long g)
{
	return a + b + c + d + e + f + g;
}

ENTRY(main_has_no_slots)
{
	asm volatile("r0 = *(u64 *)(r11 + 8); exit");
}

NAKED long reads_third(long a, long b, long c, long d, long e, long f, long g)
{
	asm volatile("r0 = *(u64 *)(r11 + 24); exit");
}

ENTRY(slot_too_far)
{
	asm volatile("r1 = 1; r2 = 2; r3 = 3; r4 = 4; r5 = 5;"
		     "*(u64 *)(r11 - 8) = 6; *(u64 *)(r11 - 16) = 7;"
		     "call %[f]; r0 = 0; exit" ::[f] "i"(reads_third));
}

NAKED long reads_late(long a, long b, long c, long d, long e, long f, long g)
{
	asm volatile("*(u64 *)(r11 - 8) = 1; r0 = *(u64 *)(r11 + 8); exit");
}

ENTRY(read_after_store)
{
	asm volatile("r1 = 1; r2 = 2; r3 = 3; r4 = 4; r5 = 5;"
		     "*(u64 *)(r11 - 8) = 6; *(u64 *)(r11 - 16) = 7;"
		     "call %[f]; r0 = 0; exit" ::[f] "i"(reads_late));
}

NAKED long reads_after_call(long a, long b, long c, long d, long e, long f, long g)
{
	asm volatile("call 5; r0 = *(u64 *)(r11 + 8); exit");
}

ENTRY(read_after_call)
{
	asm volatile("r1 = 1; r2 = 2; r3 = 3; r4 = 4; r5 = 5;"
		     "*(u64 *)(r11 - 8) = 6; *(u64 *)(r11 - 16) = 7;"
		     "call %[f]; r0 = 0; exit" ::[f] "i"(reads_after_call));
}

ENTRY(not_written)
{
	asm volatile("r1 = 1; r2 = 2; r3 = 3; r4 = 4; r5 = 5;"
		     "*(u64 *)(r11 - 8) = 6;"
		     "call %[f]; r0 = 0; exit" ::[f] "i"(seven));
}

ENTRY(not_written_on_a_path)
{
	asm volatile("r0 = *(u64 *)(r1 + 0);"
		     "r1 = 1; r2 = 2; r3 = 3; r4 = 4; r5 = 5;"
		     "*(u64 *)(r11 - 16) = 7;"
		     "if r0 == 0 goto +1;"
		     "*(u64 *)(r11 - 8) = 6;"
		     "call %[f]; r0 = 0; exit" ::[f] "i"(seven));
}

ENTRY(forgotten_by_a_call)
{
	asm volatile("*(u64 *)(r11 - 8) = 6; *(u64 *)(r11 - 16) = 7;"
		     "call 5;"
		     "r1 = 1; r2 = 2; r3 = 3; r4 = 4; r5 = 5;"
		     "call %[f]; r0 = 0; exit" ::[f] "i"(seven));
}

ENTRY(too_many_written)
{
	asm volatile("r1 = 1; r2 = 2; r3 = 3; r4 = 4; r5 = 5;"
		     "*(u64 *)(r11 - 8) = 6; *(u64 *)(r11 - 16) = 7; *(u64 *)(r11 - 24) = 8;"
		     "call %[f]; r0 = 0; exit" ::[f] "i"(seven));
}
