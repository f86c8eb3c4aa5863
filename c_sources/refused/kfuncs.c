/*
 * Calls of kernel functions that Linux refuses.
 *
 * refuse struct_in_a_slot: Unrecognized *(R11-8) type STRUCT
 * refuse struct_in_a_register: Unrecognized *(R11-8) type STRUCT
 * refuse slot_missing: callee expects 12 args, stack arg3 is not initialized
 * refuse slot_too_many: func#0 writes 2 stack arg slots, but calls only require 1
 * refuse pointer_for_a_scalar: *(R11-8) is not a scalar
 * refuse null_for_memory: Possibly NULL pointer passed to trusted *(R11-16)
 * refuse memory_too_short: invalid read from stack *(R11-16) off=-8 size=16
 * refuse size_negative: *(R11-24) min value is negative, either use unsigned or 'var &= const'
 * refuse number_for_memory: *(R11-8) type=scalar expected=fp
 * refuse string_on_the_stack: *(R11-8) doesn't point to a const string
 * refuse string_that_may_change: *(R11-8) does not point to a readonly map'
 * refuse size_taken_from_r6: reading from stack R5 off -16+0 size 16, slot poisoned by dead code elimination
 *
 * The last one is refused wrongly: docs/findings/linux_size_in_slot.md.
 */
#include <crosscheck/kfuncs.h>

#include "bpf.h"

#define PROGRAM(name) SEC("syscall") int name(void *ctx)

PROGRAM(struct_in_a_slot)
{
	struct crosscheck_two two = { 1, 2 };

	return crosscheck_kfunc_struct6(1, 2, 3, 4, 5, two);
}

/* Each function is looked at once, whatever the caller does. */
ENTRY(struct_in_a_register)
{
	asm volatile("call %[f]; r0 = 0; exit" ::[f] "i"(crosscheck_kfunc_struct6));
}

#define FIVE "r1 = 1; r2 = 2; r3 = 3; r4 = 4; r5 = 5;"

ENTRY(slot_missing)
{
	asm volatile(FIVE "*(u64 *)(r11 - 8) = 6; *(u64 *)(r11 - 16) = 7;"
		     "*(u64 *)(r11 - 32) = 9; call %[f]; r0 = 0; exit" ::[f] "i"(
			     crosscheck_kfunc_u64x12));
}

ENTRY(slot_too_many)
{
	asm volatile(FIVE "*(u64 *)(r11 - 8) = 6; *(u64 *)(r11 - 16) = 7;"
		     "call %[f]; r0 = 0; exit" ::[f] "i"(crosscheck_kfunc_u64x6));
}

ENTRY(pointer_for_a_scalar)
{
	asm volatile(FIVE "*(u64 *)(r11 - 8) = r10; call %[f]; r0 = 0; exit" ::[f] "i"(
		crosscheck_kfunc_u64x6));
}

PROGRAM(null_for_memory)
{
	return crosscheck_kfunc_memory9(1, 2, 3, 4, 5, 6, 0, 8, 9);
}

ENTRY(memory_too_short)
{
	asm volatile("*(u64 *)(r10 - 8) = 0; r6 = r10; r6 += -8;" FIVE
		     "*(u64 *)(r11 - 8) = 6; *(u64 *)(r11 - 16) = r6; *(u64 *)(r11 - 24) = 16;"
		     "*(u64 *)(r11 - 32) = 9; call %[f]; r0 = 0; exit" ::[f] "i"(
			     crosscheck_kfunc_memory9));
}

ENTRY(size_negative)
{
	asm volatile("*(u64 *)(r10 - 8) = 0; r6 = r10; r6 += -8;" FIVE
		     "*(u64 *)(r11 - 8) = 6; *(u64 *)(r11 - 16) = r6; *(u64 *)(r11 - 24) = -1;"
		     "*(u64 *)(r11 - 32) = 9; call %[f]; r0 = 0; exit" ::[f] "i"(
			     crosscheck_kfunc_memory9));
}

PROGRAM(number_for_memory)
{
	return crosscheck_kfunc_nullable7(1, 2, 3, 4, 5, (cc_u64 *)6, 7);
}

ENTRY(string_on_the_stack)
{
	asm volatile("*(u64 *)(r10 - 8) = 0; r6 = r10; r6 += -8;" FIVE
		     "*(u64 *)(r11 - 8) = r6; *(u64 *)(r11 - 16) = 9; call %[f]; r0 = 0; exit" ::[f]
		     "i"(crosscheck_kfunc_string7));
}

/* These are taken; and clang declares in BTF what C calls, not what assembly does. */
PROGRAM(memory_as_it_should_be)
{
	cc_u64 memory[2] = { 1, 2 };

	return crosscheck_kfunc_memory9(1, 2, 3, 4, 5, 6, memory, sizeof(memory), 9) +
	       crosscheck_kfunc_memory6(1, 2, 3, 4, memory, sizeof(memory));
}

PROGRAM(as_they_should_be)
{
	return crosscheck_kfunc_u64x12(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12) +
	       crosscheck_kfunc_u64x6(1, 2, 3, 4, 5, 6) +
	       crosscheck_kfunc_nullable7(1, 2, 3, 4, 5, 0, 7) +
	       crosscheck_kfunc_string7(1, 2, 3, 4, 5, "constant", 7);
}

char text[8] = "changes";

PROGRAM(string_that_may_change)
{
	return crosscheck_kfunc_string7(1, 2, 3, 4, 5, text, 7);
}

/* The size is in a slot, but Linux's analysis of live stack takes r6 for it. */
ENTRY(size_taken_from_r6)
{
	asm volatile("r7 = *(u64 *)(r1 + 0); r6 = 0;"
		     "*(u64 *)(r10 - 8) = 1; *(u64 *)(r10 - 16) = 2;"
		     "if r7 == 0 goto 1f; r7 = 0; 1: if r7 == 1 goto 2f; 2:"
		     "r5 = r10; r5 += -16; *(u64 *)(r11 - 8) = 16;"
		     "r1 = 1; r2 = 2; r3 = 3; r4 = 4; call %[f]; r0 = 0; exit" ::[f] "i"(
			     crosscheck_kfunc_memory6));
}
