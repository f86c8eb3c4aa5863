/*
 * refuse narrow_load: R11 is invalid
 * refuse unaligned_store: R11 is invalid
 * refuse load_from_outgoing: R11 is invalid
 * refuse store_to_incoming: R11 is invalid
 * refuse move_from: R11 is invalid
 * refuse move_to: R11 is invalid
 * refuse compare: R11 is invalid
 * refuse atomic: R11 is invalid
 * refuse eighth_slot: stack arg write offset -64 exceeds max 7 stack args
 */
#include "bpf.h"

ENTRY(narrow_load)
{
	asm volatile("r0 = *(u32 *)(r11 + 8); exit");
}

ENTRY(unaligned_store)
{
	asm volatile("*(u64 *)(r11 - 4) = r1; r0 = 0; exit");
}

ENTRY(load_from_outgoing)
{
	asm volatile("*(u64 *)(r11 - 8) = 1; r0 = *(u64 *)(r11 - 8); exit");
}

ENTRY(store_to_incoming)
{
	asm volatile("*(u64 *)(r11 + 8) = r1; r0 = 0; exit");
}

ENTRY(move_from)
{
	asm volatile("r0 = r11; exit");
}

ENTRY(move_to)
{
	asm volatile("r11 = 0; r0 = 0; exit");
}

ENTRY(compare)
{
	asm volatile("r0 = 0; if r11 == 0 goto +0; exit");
}

ENTRY(atomic)
{
	asm volatile("r0 = 0; lock *(u64 *)(r11 - 8) += r0; exit");
}

ENTRY(eighth_slot)
{
	asm volatile("*(u64 *)(r11 - 64) = 0; r0 = 0; exit");
}
