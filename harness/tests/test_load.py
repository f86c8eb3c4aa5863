"""Objects of the real clang, and what libbpf makes of them."""

from __future__ import annotations

import struct
import subprocess
import time
from pathlib import Path

import pytest

from harness.btf import EXTERN, GLOBAL, STATIC, DataSec, Func, Var
from harness.btf_check import validate
from harness.isa.insn import Call, GotoX, LoadImm
from harness.load import LoadError, Object, load_object
from harness.model import Program

PRELUDE = """
typedef unsigned int u32; typedef unsigned long u64;
#define SEC(name) __attribute__((section(name), used))
#define HIDDEN __attribute__((visibility("hidden")))
#define NOINLINE __attribute__((noinline))
#define __uint(name, val) int (*name)[val]
#define __type(name, val) val *name
char _license[] SEC("license") = "GPL";
"""

SOURCE = (
    PRELUDE
    + r"""
int counter = 7; static volatile int hidden_count; const volatile int table[4] = {1, 2, 3, 4};
HIDDEN u64 hidden_global = 5; int zero[16];
volatile const int other_table[2] SEC(".rodata.more") = {8, 9};
struct { __uint(type, 1); __uint(max_entries, 8); __type(key, u32); __type(value, u64);
         __uint(map_flags, 1); } hash SEC(".maps");
struct inner { __uint(type, 2); __uint(max_entries, 1); __type(key, u32); __type(value, u64); };
struct { __uint(type, 13); __uint(max_entries, 2); __uint(key_size, 4);
         struct inner *values[]; } outer SEC(".maps");
struct { __uint(type, 27); __uint(max_entries, 5000); __uint(pinning, 1); } ring SEC(".maps");
extern int kfunc(int a, int b, int c, int d, int e, int f) SEC(".ksyms");
extern int CONFIG_OPTION __attribute__((section(".kconfig"), weak));
#define lookup ((void *(*)(void *map, const void *key))1)
#define trace ((long (*)(const char *fmt, u32 n, ...))6)
#define loop ((long (*)(u32 n, void *callback, void *ctx, u64 flags))181)
static NOINLINE int callback(u32 i, void *ctx) { *(long *)ctx += i; return 0; }
HIDDEN NOINLINE int many(int a, int b, int c, int d, int e, int f, long g, volatile char *h) {
    return a + b + c + d + e + f + g + h[0];
}
static NOINLINE int local(int a, int b) {
    volatile char x = 3;
    return many(a, b, 1, 2, 3, 4, 5, &x) + hidden_count++;
}
NOINLINE int global(int a) {
    return local(a, counter) + table[a & 3] + hidden_global + other_table[a & 1];
}
SEC("syscall") int program(u64 *ctx) {
    long sum = 0;
    u32 key = 1;
    u64 *value = lookup(&hash, &key);
    if (value) sum += *value;
    trace("hello %d", 9, key);
    loop(4, callback, &sum, 0);
    lookup(&outer, &key);
    lookup(&ring, &key);
    return global(ctx[0]) + sum + kfunc(1, 2, 3, 4, 5, 6) + CONFIG_OPTION + zero[3];
}
SEC("tc/ingress") int second(u64 *ctx) { return local(1, 2) + kfunc(6, 5, 4, 3, 2, 1); }
"""
)


def compile_object(clang: list[str], folder: Path, source: str, *options: str) -> bytes:
    (folder / "a.c").write_text(source)
    command = [*clang, "-target", "bpf", "-g", "-O2", "-mcpu=v4", *options]
    subprocess.run(
        [*command, "-c", "a.c", "-o", "a.o"], cwd=folder, check=True, capture_output=True
    )
    return (folder / "a.o").read_bytes()


BUILDS = [(opt, mcpu) for opt in "0123s" for mcpu in ("v1", "v4")] + [("2", "v2"), ("2", "v3")]


@pytest.fixture(scope="session")
def objects(
    clang: list[str], tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[str, str], bytes]:
    folder = tmp_path_factory.mktemp("load")
    return {
        (opt, mcpu): compile_object(clang, folder, SOURCE, f"-O{opt}", f"-mcpu={mcpu}")
        for opt, mcpu in BUILDS
    }


@pytest.fixture(scope="session")
def optimised(objects: dict[tuple[str, str], bytes]) -> Object:
    return load_object(objects["2", "v4"], path="some/example.bpf.o")


def load(clang: list[str], folder: Path, source: str, *options: str) -> Object:
    return load_object(compile_object(clang, folder, PRELUDE + source, *options), path="a.o")


def program_of(loaded: Object, name: str) -> Program:
    return next(program for program in loaded.programs if program.name == name)


def calls_of(program: Program) -> dict[str, set[str]]:
    """Return the names of what each subprogram calls or takes the address of."""
    found: dict[str, set[str]] = {sub.name: set() for sub in program.subprograms}
    starts = {sub.start: sub.name for sub in program.subprograms}
    for slot, insn in enumerate(program.insns):
        caller = program.subprograms[program.subprogram_at(slot)].name
        match insn:
            case Call(kind="subprog", imm=imm):
                found[caller].add(starts[slot + imm + 1])
            case LoadImm(src=4, imm=imm):
                found[caller].add(starts[(slot + imm + 1) & 0xFFFFFFFF])
            case Call(kind="kfunc", imm=imm):
                found[caller].add(program.kfuncs[imm])
    return found


# --- programs and their subprograms ------------------------------------------


@pytest.mark.parametrize(("opt", "mcpu"), BUILDS)
def test_every_build_links(objects: dict[tuple[str, str], bytes], opt: str, mcpu: str) -> None:
    loaded = load_object(objects[opt, mcpu], path="a.o", fill_names=True)
    assert not loaded.refused
    assert [note for note in loaded.notes if "were given names" not in note] == []
    assert loaded.btf is not None
    assert validate(loaded.btf) is None
    first, second = loaded.programs
    assert (first.section, first.type, first.sleepable) == ("syscall", "syscall", True)
    assert (second.section, second.type) == ("tc/ingress", "sched_cls")
    assert calls_of(first) == {
        "program": {"callback", "global", "kfunc"},
        "callback": set(),
        "global": {"local"},
        "local": {"many"},
        "many": set(),
    }
    assert calls_of(second) == {"second": {"local", "kfunc"}, "local": {"many"}, "many": set()}
    for program in loaded.programs:
        subs = program.subprograms
        assert [sub.start for sub in subs] == [0, *(sub.end for sub in subs[:-1])]
        assert subs[-1].end == len(program.insns)
        for sub in subs:
            func = loaded.btf[sub.type_id]
            assert isinstance(func, Func)
            assert func.name == sub.name
            hidden = sub.name in ("callback", "local", "many")
            assert sub.linkage == ("static" if hidden else "global")
            assert func.linkage == (STATIC if hidden else GLOBAL)


def test_without_names_the_kernel_refuses_the_btf(
    objects: dict[tuple[str, str], bytes],
) -> None:
    loaded = load_object(objects["0", "v4"])
    assert loaded.btf is not None
    log = validate(loaded.btf)
    assert log is not None
    assert log.endswith("Invalid arg#1")
    assert " FUNC " in log


def test_lines_are_those_of_the_source(optimised: Object) -> None:
    source = SOURCE.splitlines()
    for program in optimised.programs:
        assert len(program.lines) > 10
        slots = [line.insn for line in program.lines]
        assert slots == sorted(slots)
        for line in program.lines:
            assert line.text == source[line.line - 1]
            assert line.file.endswith("a.c")
        starts = {sub.start for sub in program.subprograms}
        assert starts <= set(slots)
        call = next(
            slot
            for slot, insn in enumerate(program.insns)
            if isinstance(insn, Call) and insn.kind == "kfunc"
        )
        covering = [line for line in program.lines if line.insn <= call][-1]
        assert "kfunc(" in covering.text


def test_order_is_libbpfs(clang: list[str], tmp_path: Path) -> None:
    # the picture above bpf_object__relocate_calls
    source = """
        static NOINLINE int b(int x) { return x * 3 + 1; }
        HIDDEN NOINLINE int a(int x) { return b(x) + 1; }
        HIDDEN NOINLINE int c(int x) { return b(x) * 5; }
        SEC("syscall") int main_a(int *x) { return a(*x); }
        SEC("syscall") int main_b(int *x) { return c(*x); }
        SEC("syscall") int main_c(int *x) { return c(*x) + a(*x); }
        """
    loaded = load(clang, tmp_path, source)
    orders = [[sub.name for sub in program.subprograms] for program in loaded.programs]
    assert orders == [["main_a", "a", "b"], ["main_b", "c", "b"], ["main_c", "c", "b", "a"]]


def test_functions_without_a_section_of_their_own(clang: list[str], tmp_path: Path) -> None:
    loaded = load(clang, tmp_path, """
        static NOINLINE int twice(int x) { return x * 2; }
        int entry(int x) { return twice(x) + twice(x + 1); }
        int other(int x) { return x; }
        """)  # fmt: skip
    assert loaded.programs == ()
    assert set(loaded.functions) == {"entry", "other", "twice"}
    program = loaded.link("entry", "syscall")
    assert (program.section, program.type) == (".text", "syscall")
    assert calls_of(program) == {"entry": {"twice"}, "twice": set()}
    assert [sub.name for sub in loaded.link("other").subprograms] == ["other"]
    with pytest.raises(LoadError, match=r"a\.o: no function missing"):
        loaded.link("missing")


def test_without_btf_nothing_is_global(clang: list[str], tmp_path: Path) -> None:
    source = 'NOINLINE int f(int x) { return x + 1; } SEC("xdp") int p(int *x) { return f(*x); }'
    loaded = load(clang, tmp_path, source, "-g0")
    (program,) = loaded.programs
    assert program.btf is None
    assert program.lines == ()
    assert [(sub.linkage, sub.type_id) for sub in program.subprograms] == [("static", 0)] * 2


def test_damaged_btf_that_nothing_needs_is_ignored(clang: list[str], tmp_path: Path) -> None:
    source = """
        NOINLINE int f(int x) { return x + 1; }
        SEC("xdp") int p(int *x) { return f(*x); }
        """
    data = compile_object(clang, tmp_path, PRELUDE + source)
    at = data.index(b"\x9f\xeb\x01\x00\x18")
    loaded = load_object(data[: at + 2] + b"\x07" + data[at + 3 :])
    assert loaded.notes == ("damaged BTF: version 7 is not 1; it is ignored",)
    assert [program.btf for program in loaded.programs] == [None]
    at = data.index(b"\x9f\xeb\x01\x00\x20")
    loaded = load_object(data[: at + 2] + b"\x07" + data[at + 3 :])
    assert loaded.notes == ("damaged BTF.ext: unknown magic, version or flags; it is ignored",)
    (program,) = loaded.programs
    assert program.btf is not None
    assert program.lines == ()
    assert [sub.type_id for sub in program.subprograms] == [0, 0]


def test_recursion_ends(clang: list[str], tmp_path: Path) -> None:
    loaded = load(clang, tmp_path, """
        HIDDEN int odd(int x);
        HIDDEN NOINLINE int even(int x) { return x ? odd(x - 1) + 2 : 1; }
        HIDDEN NOINLINE int odd(int x) { return x ? even(x - 1) + 3 : 0; }
        SEC("socket") int p(int *x) { return even(*x); }
        """, "-fno-optimize-sibling-calls")  # fmt: skip
    assert calls_of(loaded.programs[0]) == {"p": {"even"}, "even": {"odd"}, "odd": {"even"}}


def test_exception_callback_comes_last(clang: list[str], tmp_path: Path) -> None:
    source = """
        NOINLINE int boundary(u64 cookie) { return cookie; }
        static NOINLINE int sub(int x) { return x / 3; }
        SEC("syscall") __attribute__((btf_decl_tag("exception_callback:%s")))
        int p(int *x) { return sub(*x); }
        """
    loaded = load(clang, tmp_path, source % "boundary")
    assert [sub.name for sub in loaded.programs[0].subprograms] == ["p", "sub", "boundary"]
    with pytest.raises(LoadError, match="its exception callback sub is not global"):
        load(clang, tmp_path, source % "sub")
    with pytest.raises(LoadError, match="its exception callback nothing is not defined"):
        load(clang, tmp_path, source % "nothing")


def test_jump_tables_hold_slots_of_the_program(clang: list[str], tmp_path: Path) -> None:
    cases = "".join(f"case {n}: x[{n}] = x[0] * {n + 3}; break;" for n in range(12))
    source = f"""
        static NOINLINE int sub(u64 *x) {{ switch (x[15]) {{ {cases} }} return x[3]; }}
        SEC("syscall") int p(u64 *x) {{ switch (x[14]) {{ {cases} }} return sub(x); }}
        """
    loaded = load(clang, tmp_path, source, "-mllvm", "-bpf-min-jump-table-entries=3")
    (program,) = loaded.programs
    jumps = [slot for slot, insn in enumerate(program.insns) if isinstance(insn, GotoX)]
    if not jumps:
        pytest.fail("this clang makes no jump tables any more; find the option that does")
    assert [value.name for value in program.maps] == [".jumptables"] * 2
    for jump, table, sub in zip(jumps, program.maps, program.subprograms, strict=True):
        assert (table.type, table.key_size, table.value_size) == (34, 4, 16)
        assert table.data is not None
        slots = [row[0] for row in struct.iter_unpack("<IIII", table.data)]
        assert len(slots) == table.max_entries == 12
        assert sub.start <= jump < sub.end
        assert all(jump < slot < sub.end for slot in slots)


# --- maps and data -----------------------------------------------------------


def text_at(program: Program, insn: LoadImm) -> bytes:
    value = program.maps[insn.imm & 0xFFFFFFFF].data
    assert value is not None
    return value[insn.imm >> 32 :].partition(b"\0")[0]


@pytest.mark.parametrize(("opt", "mcpu"), [("0", "v1"), ("2", "v4")])
def test_maps_are_referred_to_by_index(
    objects: dict[tuple[str, str], bytes], opt: str, mcpu: str
) -> None:
    program = load_object(objects[opt, mcpu], path="x/a.o").programs[0]
    named = {"hash": 0, "outer": 0, "ring": 0}
    strings = set()
    for insn in program.insns:
        match insn:
            case LoadImm(src=5):
                named[program.maps[insn.imm].name] += 1
            case LoadImm(src=6) if program.maps[insn.imm & 0xFFFFFFFF].name == ".rodata.str1.1":
                strings.add(text_at(program, insn))
    assert named == {"hash": 1, "outer": 1, "ring": 1}
    assert strings == {b"hello %d"}


def test_definitions_of_maps(optimised: Object) -> None:
    maps = {value.name: value for value in optimised.maps}
    assert optimised.btf is not None
    hash_map = maps["hash"]
    assert (hash_map.type, hash_map.key_size, hash_map.value_size) == (1, 4, 8)
    assert (hash_map.max_entries, hash_map.flags, hash_map.data) == (8, 1, None)
    assert optimised.btf.c_name(hash_map.key_type) == "u32"
    assert optimised.btf.c_name(hash_map.value_type) == "u64"
    outer = maps["outer"]
    assert (outer.type, outer.key_size, outer.value_size, outer.max_entries) == (13, 4, 4, 2)
    assert outer.inner is not None
    assert (outer.inner.name, outer.inner.type, outer.inner.value_size) == ("outer.inner", 2, 8)
    assert maps["ring"].max_entries == 8192  # rounded up to pages, a power of two of them
    assert list(maps)[:3] == ["hash", "outer", "ring"]


def test_data_sections_are_maps(optimised: Object) -> None:
    maps = {value.name: value for value in optimised.maps}
    data, rodata = maps["example.data"], maps["example.rodata"]
    more, bss, option = maps[".rodata.more"], maps["example.bss"], maps["example.kconfig"]
    for value in (data, rodata, more, bss, option):
        assert (value.type, value.key_size, value.max_entries) == (2, 4, 1)
        assert value.data is not None
        assert len(value.data) == value.value_size
    assert data.data is not None
    assert rodata.data is not None
    assert sorted(struct.unpack("<iiQ", data.data)) in ([0, 5, 7],)
    assert rodata.data[:16] == struct.pack("<iiii", 1, 2, 3, 4)
    assert more.data == struct.pack("<ii", 8, 9)
    assert bss.data == bytes(bss.value_size)
    assert [value.readonly for value in (data, rodata, more, bss, option)] == [
        False, True, True, False, True,
    ]  # fmt: skip
    mmapable, readonly = 1 << 10, 1 << 7
    assert (data.flags, rodata.flags) == (mmapable, mmapable | readonly)
    assert optimised.btf is not None
    section = optimised.btf[rodata.value_type]
    assert isinstance(section, DataSec)
    assert (section.name, section.size) == (".rodata", rodata.value_size)


def test_offsets_into_data_are_the_symbols(optimised: Object) -> None:
    btf = optimised.btf
    assert btf is not None
    places = {
        btf[row.type].name: (section.name, row.offset)
        for section in btf.types
        if isinstance(section, DataSec)
        for row in section.variables
    }
    program = optimised.programs[0]
    referred = {
        (program.maps[insn.imm & 0xFFFFFFFF].name.removeprefix("example"), insn.imm >> 32)
        for insn in program.insns
        if isinstance(insn, LoadImm) and insn.src == 6
    }
    for name in ("counter", "table", "hidden_global", "hidden_count", "zero", "other_table"):
        section, offset = places[name]
        near = {(section, at) for at in range(offset, offset + 64)}
        assert referred & near, name


def test_names_of_data_maps() -> None:
    from harness.load.maps import data_map_name

    assert data_map_name("dir/my_object_name.bpf.o", ".rodata") == "my_objec.rodata"
    assert data_map_name("dir/my_object_name.bpf.o", ".bss") == "my_objec.bss"
    assert data_map_name("my_object_name.o", ".kconfig") == "my_obje.kconfig"
    assert data_map_name("a.o", ".rodata.abracadabra") == ".rodata.abracad"
    assert data_map_name("a-b.o", ".data") == "a_b.data"
    assert data_map_name("<object>", ".data") == "_object_.data"


def test_btf_is_as_the_kernel_gets_it(optimised: Object) -> None:
    btf = optimised.btf
    assert btf is not None
    for kind in btf.types:
        match kind:
            case DataSec():
                assert kind.size
                offsets = [row.offset for row in kind.variables]
                assert offsets == sorted(offsets)
            case Var() | Func():
                assert kind.linkage != EXTERN
    hidden = btf[btf.find("hidden_global", Var) or 0]
    assert isinstance(hidden, Var)
    assert hidden.linkage == STATIC
    assert btf.types[-1] == Var("dummy_ksym", btf.find("int", type(btf[2])) or 0, GLOBAL)


BAD_MAPS = [
    ("struct { __type(key, u32); } m SEC(\".maps\");", "map m: its type is not specified"),
    ("struct { __uint(type, 1); int x; } m SEC(\".maps\");", "map m: unknown field x"),
    ("struct { int type; } m SEC(\".maps\");", "map m: its type is no pointer to an array"),
    (
        "struct { __uint(type, 1); __uint(key_size, 8); __type(key, u32); } m SEC(\".maps\");",
        "map m: two sizes of its key",
    ),
    (
        "struct { __uint(type, 1); __uint(pinning, 2); } m SEC(\".maps\");",
        "map m: its pinning is not valid",
    ),
    (
        "struct { __uint(type, 1); int *values[]; } m SEC(\".maps\");",
        "map m: values are for maps of maps and program arrays",
    ),
    ("static struct { __uint(type, 1); } m SEC(\".maps\");", "map m: a static map"),
    ("int m SEC(\".maps\");", "map m: its definition is not a struct of its size"),
    ("int m SEC(\"maps\") = 1;", "legacy map definitions in section maps"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "message"), BAD_MAPS)
def test_maps_that_libbpf_refuses(
    clang: list[str], tmp_path: Path, source: str, message: str
) -> None:
    with pytest.raises(LoadError) as caught:
        load(clang, tmp_path, source)
    assert str(caught.value).startswith(f"a.o: {message}")


def test_an_arena_holds_its_globals_at_its_end(clang: list[str], tmp_path: Path) -> None:
    space = "__attribute__((address_space(1)))"
    source = f'int {space} value = 3; SEC("syscall") int p(void *c) {{ return value; }}'
    arena = 'struct {{ __uint(type, 33); __uint(max_entries, {}); }} arena SEC(".maps");'
    loaded = load(clang, tmp_path, arena.format(10) + source)
    (program,) = loaded.programs
    assert program.maps[0].data == struct.pack("<i", 3)
    assert LoadImm(1, 6, 9 * 4096 << 32) in program.insns
    with pytest.raises(LoadError, match=r"needs an arena in \.maps"):
        load(clang, tmp_path, source)
    with pytest.raises(LoadError, match="arena arena is too small"):
        load(clang, tmp_path, arena.format(0) + source)


# --- what only a kernel could complete ---------------------------------------


def test_programs_that_need_a_kernel_are_refused_one_by_one(
    clang: list[str], tmp_path: Path
) -> None:
    loaded = load(clang, tmp_path, r"""
        struct task { int pid; int x; } __attribute__((preserve_access_index));
        extern int CONFIG_HZ SEC(".kconfig");
        extern const int jiffies SEC(".ksyms");
        static const char *const volatile strings[] = {"a", "b"};
        static NOINLINE int sub(struct task *t) { return t->x; }
        SEC("syscall") int field(struct task *t) { return sub(t); }
        SEC("syscall") int option(int *x) { return CONFIG_HZ; }
        SEC("syscall") int symbol(int *x) { return jiffies; }
        SEC("syscall") long pointer(int *x) { return (long)strings[*x & 1]; }
        SEC("syscall") int id(int *x) { return __builtin_btf_type_id(*(struct task *)0, 0); }
        SEC("syscall") int plain(int *x) { return *x; }
        """, "-Wno-ignored-attributes")  # fmt: skip
    assert [program.name for program in loaded.programs] == ["id", "plain"]
    assert {each.name: each.why for each in loaded.refused} == {
        "field": "CO-RE relocation byte_off of task needs a kernel's BTF",
        "option": "the value of extern CONFIG_HZ needs a kernel",
        "symbol": "the value of extern jiffies needs a kernel",
        "pointer": ".rodata holds pointers, which libbpf leaves unrelocated",
    }
    assert all(each.section == "syscall" for each in loaded.refused)
    with pytest.raises(LoadError, match=r"a\.o: sub: CO-RE relocation byte_off of task"):
        loaded.link("sub")


BAD_PROGRAMS = [
    (
        "static SEC(\"tc\") int p(int *x) { return *x; }",
        "tc: function p is static; a program must be global",
    ),
    (
        "SEC(\"tc\") NOINLINE int f(int x) { return x + 1; }"
        "SEC(\"xdp\") int p(int *x) { return f(*x); }",
        "p: instruction 1: refers to f, which is no function in .text",
    ),
    (
        "int f(int x); SEC(\"tc\") int p(int *x) { return f(*x); }",
        "extern f is in section (none); the kernel defines externs of .ksyms and .kconfig only",
    ),
    (
        "extern int v; SEC(\"tc\") int p(int *x) { return v; }",
        "extern v is in section (none)",
    ),
    (
        "int v SEC(\"mine\") = 3; SEC(\"tc\") int p(int *x) { return v; }",
        "p: instruction 0: refers to v in section mine: no map",
    ),
    (
        "extern struct { int a; } v SEC(\".kconfig\"); SEC(\"tc\") int p(int *x) { return v.a; }",
        "extern v: its type is none of a kernel option",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("source", "message"), BAD_PROGRAMS)
def test_programs_that_libbpf_refuses(
    clang: list[str], tmp_path: Path, source: str, message: str
) -> None:
    with pytest.raises(LoadError) as caught:
        load(clang, tmp_path, source, "-Wno-everything")
    assert str(caught.value).startswith(f"a.o: {message}")


def test_externs_need_btf(clang: list[str], tmp_path: Path) -> None:
    source = 'extern int k(int) SEC(".ksyms"); SEC("tc") int p(int *x) { return k(*x); }'
    with pytest.raises(LoadError, match=r"a\.o: extern k needs BTF, .* compile with -g"):
        load(clang, tmp_path, source, "-g0", "-Wno-everything")


def test_options_of_the_kernel_are_laid_out_by_alignment(clang: list[str], tmp_path: Path) -> None:
    names = {"CONFIG_A": "_Bool", "CONFIG_B": "u64", "CONFIG_C": "u32", "CONFIG_D": "char"}
    declared = "".join(
        f'extern {kind} {name} __attribute__((section(".kconfig"), weak));'
        for name, kind in names.items()
    )
    text = 'extern char CONFIG_E[6] __attribute__((section(".kconfig"), weak));'
    total = " + ".join(names)
    source = f'{declared}{text}SEC("tc") u64 p(int *x) {{ return {total} + CONFIG_E[0]; }}'
    loaded = load(clang, tmp_path, source)
    (program,) = loaded.programs
    btf = loaded.btf
    assert btf is not None
    section = btf[btf.find(".kconfig", DataSec) or 0]
    assert isinstance(section, DataSec)
    places = {btf[row.type].name: row.offset for row in section.variables}
    assert places == {"CONFIG_B": 0, "CONFIG_C": 8, "CONFIG_A": 12, "CONFIG_D": 13, "CONFIG_E": 14}
    assert (section.size, program.maps[0].value_size, program.maps[0].data) == (20, 20, bytes(20))
    assert validate(btf) is None


# --- speed -------------------------------------------------------------------


def test_many_programs_share_their_subprograms(clang: list[str], tmp_path: Path) -> None:
    parts = []
    for number in range(40):
        before = f"f{number - 1}(a, b) +" if number % 8 else ""
        work = " ".join(f"s = s * {k} + (b >> {k % 7}); if (s & 8) s ^= a;" for k in range(3, 20))
        body = f"u64 s = {before} a; {work} return s;"
        parts.append(
            f"HIDDEN NOINLINE u64 f{number}(u64 a, u64 b) {{ {body} }}"
            f'SEC("syscall") u64 p{number}(u64 *x) {{ return f{number}(x[0], x[1]); }}'
        )
    data = compile_object(clang, tmp_path, PRELUDE + "\n".join(parts))
    assert len(data) > 100_000
    best = 9.0
    for _ in range(3):
        start = time.perf_counter()
        loaded = load_object(data)
        best = min(best, time.perf_counter() - start)
    assert len(loaded.programs) == 40
    assert max(len(program.subprograms) for program in loaded.programs) == 9
    assert best < 0.5  # 0.03 s on an idle machine
