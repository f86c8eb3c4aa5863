"""BPF text as a C program that needs nothing of ours: it loads instructions and BTF, and runs them.

clang could assemble most texts, but gives no BTF to the parameters of functions of
assembly, by which Linux counts arguments. So the instructions and the BTF are there as
numbers, as the kernel's own tests have them, and what they say stands beside them.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.btf import Func
from harness.corpus import kernel_types
from harness.isa.codec import encode
from harness.isa.insn import Call, High, LoadImm
from harness.isa.opcodes import LD_IMM64_KINDS
from harness.legs import kernel_request as request
from harness.model import MapDef, Program
from harness.triage.insn_text import insn_text
from harness.triage.text import TextTriage

_MAP_FD, _MAP_VALUE = 1, 2  # kinds of 64-bit immediates that Linux takes
_ROW = 12  # bytes a line
_LONG = 256  # bytes of a vector
_HEAD = """\
#include <linux/bpf.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
"""
_MAIN = """\
static char log[1 << 20];

static int bpf(int command, union bpf_attr *attr)
{
	return syscall(SYS_bpf, command, attr, sizeof(*attr));
}

int main(void)
{
	union bpf_attr attr;
	int types, fd;

	memset(&attr, 0, sizeof(attr));
	attr.btf = (unsigned long)btf;
	attr.btf_size = sizeof(btf);
	types = bpf(BPF_BTF_LOAD, &attr);
@MAPS@
	memset(&attr, 0, sizeof(attr));
	attr.prog_type = @TYPE@;
	attr.expected_attach_type = @ATTACH@;
	attr.prog_flags = @FLAGS@;
	attr.insns = (unsigned long)program;
	attr.insn_cnt = sizeof(program) / sizeof(*program);
	attr.license = (unsigned long)"@LICENSE@";
	attr.log_level = @LEVEL@;
	attr.log_buf = (unsigned long)log;
	attr.log_size = sizeof(log);
	attr.prog_btf_fd = types;
	attr.func_info_rec_size = sizeof(*functions);
	attr.func_info = (unsigned long)functions;
	attr.func_info_cnt = sizeof(functions) / sizeof(*functions);
	fd = bpf(BPF_PROG_LOAD, &attr);
	printf("%s%s\\n", log, fd < 0 ? "refused" : "accepted");
@RUN@	return fd < 0;
}
"""
# How many words follow each kind of BTF type, and how many each of its members
_FUNCTION = """\
/* The number of a function in the kernel's BTF */
static int function(const char *name)
{
	static const unsigned char fixed[32] = { [1] = 1, [3] = 3, [14] = 1, [17] = 1 };
	static const unsigned char each[32] = { [4] = 3, 3, 2, [13] = 2, [15] = 3, [19] = 3 };
	static unsigned char data[64 << 20];
	FILE *file = fopen("/sys/kernel/btf/vmlinux", "r");
	struct btf_header *head = (void *)data;
	unsigned int *type, *end;

	if (!file || !fread(data, 1, sizeof(data), file))
		return 0;
	type = (void *)(data + head->hdr_len + head->type_off);
	end = type + head->type_len / 4;
	for (int id = 1; type < end; id++) {
		unsigned int kind = type[1] >> 24 & 31, members = type[1] & 0xffffff;
		char *said = (char *)data + head->hdr_len + head->str_off + type[0];

		if (kind == 12 && !strcmp(said, name))
			return id;
		type += 3 + fixed[kind] + each[kind] * members;
	}
	return 0;
}
"""
_RUN = """\
	if (fd < 0)
		return 1;

	memset(&attr, 0, sizeof(attr));
	attr.test.prog_fd = fd;
	attr.test.@IN@_in = (unsigned long)ctx;
	attr.test.@IN@_size_in = sizeof(ctx);
	if (bpf(BPF_PROG_TEST_RUN, &attr))
		return 2;
	printf("returned %u, context ", attr.test.retval);
	for (unsigned int i = 0; i < sizeof(ctx); i++)
		printf("%02x", ctx[i]);
	printf("\\n");
"""


def standalone(result: TextTriage) -> str:
    """Return the C program, or a comment that says why there is none."""
    program, text = result.facts.program, result.text.program
    ours = [name for name in text.kfuncs if kernel_types().find(name, Func) is None]
    if ours:
        names = ", ".join(ours)
        return f"/* It calls {names}: kernel functions, which a module must have. */\n"
    if request.attach_type_of(program) in request.ATTACHED:
        return f"/* It attaches to {program.attach}, whose type the kernel's BTF has. */\n"
    if any(each.data is not None or each.inner is not None for each in program.maps):
        return "/* Its maps hold data, or maps: see the case. */\n"
    assert program.btf is not None
    types, _ = request.encode_btf(program.btf, [program])
    vector = result.diagnosis.vector
    head = _HEAD.replace("\n", "\n#include <linux/btf.h>\n", 1) if text.kfuncs else _HEAD
    parts = [head, _bytes("const unsigned char btf", types)]
    if vector:
        parts.append(_vector(vector))
    parts += [_instructions(program), _functions(program)]
    parts += [_FUNCTION] if text.kfuncs else []
    sleeps = program.sleepable or program.type == "syscall"
    attach = request.ATTACH_TYPES.get(request.attach_type_of(program), 0)
    main = (
        _MAIN.replace("@MAPS@\n", "".join(_maps(program) + _calls(program, text.kfuncs)))
        .replace("@TYPE@", str(request.PROGRAM_TYPES[program.type]))
        .replace("@ATTACH@", str(attach))
        .replace("@FLAGS@", "BPF_F_SLEEPABLE" if sleeps else "0")
        .replace("@LICENSE@", text.license)
        .replace("@LEVEL@", "2" if vector else "1")
        .replace("@RUN@", _RUN if vector else "")
        .replace("@IN@", "data" if program.type in request.PACKET else "ctx")
    )
    return "\n".join([*parts, main])


def _bytes(name: str, data: bytes) -> str:
    rows = (data[at : at + _ROW] for at in range(0, len(data), _ROW))
    lines = "".join("\t" + " ".join(f"{byte:#04x}," for byte in row) + "\n" for row in rows)
    return f"static {name}[] = {{\n{lines}}};\n"


def _vector(vector: bytes) -> str:
    """Return what defines the context or packet; of a long one, where it is not zero."""
    places = [at for at, byte in enumerate(vector) if byte]
    if len(vector) <= _LONG or len(places) > _LONG // 4:
        return _bytes("unsigned char ctx", vector)
    said = " ".join(f"[{at}] = {vector[at]:#04x}," for at in places)
    return f"static unsigned char ctx[{len(vector)}] = {{ {said} }};\n"


def _instructions(program: Program) -> str:
    code = encode(program.insns)
    names = {sub.start: sub.name for sub in program.subprograms}
    lines = []
    for slot, insn in enumerate(program.insns):
        if slot in names:
            lines.append(f"\t/* {names[slot]}: */")
        opcode, registers, *rest = code[8 * slot : 8 * slot + 8]
        off = int.from_bytes(rest[:2], "little", signed=True)
        imm = int.from_bytes(rest[2:], "little", signed=True)
        source = registers >> 4
        if isinstance(insn, LoadImm) and LD_IMM64_KINDS[insn.src].startswith("map_idx"):
            source = _MAP_VALUE if LD_IMM64_KINDS[insn.src].endswith("value") else _MAP_FD
        row = f"{{ {opcode:#04x}, {registers & 15}, {source}, {off}, {imm} }},"
        said = "" if isinstance(insn, High) else f" /* {slot}: {insn_text(program, slot)} */"
        lines.append(f"\t{row}{said}")
    return "static struct bpf_insn program[] = {\n" + "\n".join(lines) + "\n};\n"


def _functions(program: Program) -> str:
    rows = [f"\t{{ {sub.start}, {sub.type_id} }}," for sub in program.subprograms]
    return "static const struct bpf_func_info functions[] = {\n" + "\n".join(rows) + "\n};\n"


def _maps(program: Program) -> list[str]:
    """Return the statements that make each map and name it in the instructions."""
    return [_map(program, number, each) for number, each in enumerate(program.maps)]


def _map(program: Program, number: int, each: MapDef) -> str:
    lines = [
        "",
        "memset(&attr, 0, sizeof(attr));",
        f"attr.map_type = {each.type};",
        f"attr.key_size = {each.key_size};",
        f"attr.value_size = {each.value_size};",
        f"attr.max_entries = {each.max_entries};",
        f"attr.map_flags = {each.flags};",
        *_types(each),
        f"fd = bpf(BPF_MAP_CREATE, &attr); /* {each.name} */",
    ]
    for slot, insn in enumerate(program.insns):
        named = isinstance(insn, LoadImm) and LD_IMM64_KINDS[insn.src].startswith("map_idx")
        if named and isinstance(insn, LoadImm) and insn.imm & 0xFFFFFFFF == number:
            lines.append(f"program[{slot}].imm = fd;")
    return "".join(f"\t{line}\n" if line else "\n" for line in lines)


def _types(each: MapDef) -> list[str]:
    """Return the statements that say what a map's keys and values are."""
    if not each.key_type and not each.value_type:
        return []
    keys, values = each.key_type, each.value_type
    said = [f"attr.btf_key_type_id = {keys};", f"attr.btf_value_type_id = {values};"]
    return ["attr.btf_fd = types;", *said]


def _calls(program: Program, names: Sequence[str]) -> list[str]:
    """Return the statements that name the kernel's functions in the instructions."""
    calls = enumerate(program.insns)
    called = [(slot, c.imm) for slot, c in calls if isinstance(c, Call) and c.kind == "kfunc"]
    return [f'\tprogram[{slot}].imm = function("{names[at]}");\n' for slot, at in called]


def commands() -> list[str]:
    """Return the commands that show it, as root on the kernel in question."""
    return ["cc repro.c -o repro && ./repro"]
