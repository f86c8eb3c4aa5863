/*
 * Narrow signed arguments that go on from a register to a stack slot. clang 23.1.4 gets them
 * wrong with -mcpu=v3: see corpus/known.toml, clang-narrow-signed-slot.
 */
#include <stdint.h>

static __attribute__((noinline)) int64_t take8(int64_t a, int64_t b, int64_t c, int64_t d,
					       int64_t e, int8_t f)
{
	return (int64_t)((uint64_t)(a ^ b ^ c ^ d ^ e) - (uint64_t)(int64_t)f);
}

static __attribute__((noinline)) int64_t take16(int64_t a, int64_t b, int64_t c, int64_t d,
						int64_t e, int16_t f)
{
	return (int64_t)((uint64_t)(a ^ b ^ c ^ d ^ e) - (uint64_t)(int64_t)f);
}

static __attribute__((noinline)) int64_t take32(int64_t a, int64_t b, int64_t c, int64_t d,
						int64_t e, int32_t f)
{
	return (int64_t)((uint64_t)(a ^ b ^ c ^ d ^ e) - (uint64_t)(int64_t)f);
}

int64_t forward_narrow_8(int32_t a, int32_t b, int32_t c, int32_t d, int8_t e, int32_t f)
{
	return take8(a, b, c, d, f, e);
}

int64_t forward_narrow_16(int32_t a, int32_t b, int32_t c, int32_t d, int16_t e, int32_t f)
{
	return take16(a, b, c, d, f, e);
}

int64_t forward_narrow_32(int32_t a, int32_t b, int32_t c, int32_t d, int32_t e, int32_t f)
{
	return take32(a, b, c, d, f, e);
}
