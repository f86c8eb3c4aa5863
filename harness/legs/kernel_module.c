/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * The project's kernel functions as a module of Linux, for BPF programs to call.
 *
 * It needs no headers of the kernel: what it has to agree on with the kernel it is made for
 * (kernel_module.py reads that from the kernel's BTF and image) comes in macros:
 *
 *	MODULE_SIZE, MODULE_NAME_AT, MODULE_INIT_AT	of struct module, in bytes
 *	MODULE_VERMAGIC					a string
 *	KFUNC_COUNT, KFUNC_IDS				type ids in the module's BTF, ascending
 *	MODULE_BTF					a string: the file that holds that BTF
 */
#define CROSSCHECK_KFUNC __attribute__((noinline, used))
#include <crosscheck/kfuncs.c>

#define NAME "crosscheck_kfuncs"
#define INFO(id, text) \
	static const char info_##id[] __attribute__((section(".modinfo"), used, aligned(1))) = text

INFO(license, "license=Dual BSD/GPL");
INFO(name, "name=" NAME);
INFO(depends, "depends=");
INFO(vermagic, "vermagic=" MODULE_VERMAGIC);

int init_module(void);

/* struct module, of which the loader fills in the rest */
struct this_module {
	char before_name[MODULE_NAME_AT];
	char name[MODULE_INIT_AT - MODULE_NAME_AT < 56 ? MODULE_INIT_AT - MODULE_NAME_AT : 56];
	char before_init[MODULE_INIT_AT - MODULE_NAME_AT - 56];
	int (*init)(void);
	char rest[MODULE_SIZE - MODULE_INIT_AT - 8];
} __this_module __attribute__((section(".gnu.linkonce.this_module"), aligned(64), used)) = {
	.name = NAME,
	.init = init_module,
};
_Static_assert(sizeof(struct this_module) == MODULE_SIZE, "struct module");

/* struct btf_id_set8 and struct btf_kfunc_id_set */
static struct {
	unsigned int count, flags;
	struct {
		unsigned int id, flags;
	} functions[KFUNC_COUNT];
} ids = { KFUNC_COUNT, 1 /* BTF_SET8_KFUNCS */, { KFUNC_IDS } };

static const struct {
	void *owner, *set, *filter;
} kfuncs = { &__this_module, &ids, 0 };

int register_btf_kfunc_id_set(int program_type, const void *set);

int init_module(void)
{
	return register_btf_kfunc_id_set(0 /* BPF_PROG_TYPE_UNSPEC: for programs of every type */,
					 &kfuncs);
}

__asm__(".pushsection .BTF,\"a\"\n"
	".incbin \"" MODULE_BTF "\"\n"
	".popsection\n");
