from __future__ import annotations

import struct
import subprocess
import time
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.btf import (
    EXTERN,
    GLOBAL,
    Array,
    Btf,
    BtfError,
    DataSec,
    DeclTag,
    Enum,
    Enumerator,
    Float,
    Func,
    FuncProto,
    Fwd,
    Int,
    Member,
    Modifier,
    Param,
    Ptr,
    SecInfo,
    Struct,
    Typedef,
    Var,
    Void,
    encode,
    fill_parameter_names,
    parse,
    references,
    strings_of,
)

SOURCE = r"""
typedef unsigned long u64;
typedef int (*callback)(int, const char *, ...);
enum small { A, B = -3 };
enum wide { C = 0x100000000ull, D };
union either { int a; char b[8]; double d; };
struct unknown;
struct bits { unsigned a : 3, b : 5; int c : 9; _Bool f : 1; enum small e : 4; u64 g : 40; };
struct packed { char a; u64 b; short c; } __attribute__((packed));
struct big {
    int x; struct big *next; union either u; struct { char a, b; } in[3]; callback f;
    struct unknown *w; float fl; __int128 i; volatile const u64 *p; enum wide q; struct bits bb;
} __attribute__((btf_decl_tag("tagged")));
struct big global_big;
const struct big constant_big;
static struct bits static_bits;
struct packed global_packed;
float a_float;
int matrix[3][4];
int (*row)[4];
u64 (*operations[2])(struct big *, char **);
char *const constant_pointer;
u64 (*(*getter)(int))(void *);
__attribute__((noinline)) u64 many(struct big *a, u64 n __attribute__((btf_decl_tag("nn"))),
    callback f, const char *restrict r, int __attribute__((btf_type_tag("user"))) *u,
    short s, _Bool flag) {
    static_bits.a++;
    return a->x + n + r[0] + *u + s + flag + (long)f;
}
__attribute__((section("tc"), used)) int program(void *c) {
    return many(&global_big, constant_big.x, 0, c, c, 1, 1) + *(int *)&a_float + matrix[1][2]
        + global_packed.c + static_bits.c + (*row)[1] + (long)operations[1]
        + (long)constant_pointer + (long)getter;
}
"""


def section_of(clang: list[str], path: Path, source: str, *options: str) -> bytes:
    (path / "a.c").write_text(source)
    command = [*clang, "-target", "bpf", "-g", "-c", "a.c", "-o", "a.o", *options]
    subprocess.run(command, cwd=path, check=True, capture_output=True)
    with (path / "a.o").open("rb") as file:
        part = ELFFile(file).get_section_by_name(".BTF")
        assert part is not None
        data: bytes = part.data()
    return data


@pytest.fixture(scope="session")
def section(clang: list[str], tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return section_of(clang, tmp_path_factory.mktemp("btf"), SOURCE, "-O2", "-mcpu=v4")


@pytest.fixture(scope="session")
def btf(section: bytes) -> Btf:
    return parse(section)


INT32 = Int("int", 4, 1, 0, 32)
EVERY_KIND = Btf(
    (
        Void(),
        INT32,
        Ptr(1),
        Array(1, 1, 3),
        Struct("s", 8, (Member("a", 1, 0), Member("", 1, 32))),
        Struct("b", 4, (Member("a", 1, 0, 3), Member("b", 1, 3, 29)), kind_flag=True),
        Struct("u", 4, (Member("a", 1, 0),), union=True),
        Enum("e", 4, (Enumerator("A", 1), Enumerator("B", 0xFFFFFFFF))),
        Enum("e", 4, (Enumerator("A", -1),), signed=True),
        Enum("w", 8, (Enumerator("A", 1 << 63),), wide=True),
        Enum("w", 8, (Enumerator("A", -1 << 63),), signed=True, wide=True),
        Fwd("f"),
        Fwd("f", union=True),
        Typedef("t", 1),
        Modifier("const", 1),
        Modifier("volatile", 1),
        Modifier("restrict", 2),
        Modifier("type_tag", 1, "user"),
        Modifier("type_tag", 1, "attribute", kind_flag=True),
        FuncProto(1, (Param("a", 1), Param("", 0))),
        Func("g", 19, GLOBAL),
        Func("x", 19, EXTERN),
        Var("v", 1, GLOBAL),
        DataSec(".data", 4, (SecInfo(22, 0, 4),)),
        Float("double", 8),
        DeclTag("tag", 20, -1),
        DeclTag("attribute", 20, 0, kind_flag=True),
        Int("odd", 1, 255, 3, 5),
    )
)


def test_every_kind_round_trips() -> None:
    assert parse(encode(EVERY_KIND)) == EVERY_KIND


def test_bits_that_kinds_do_not_use_round_trip() -> None:
    odd = Btf(
        (Void(), INT32, Ptr(1), Array(1, 1, 3), Fwd("f")),
        ((1, 3, 0xAA00), (2, 1 << 31 | 7, 0), (3, 0, 5), (4, 9, 1)),
    )
    assert parse(encode(odd)) == odd


def test_what_clang_writes_round_trips(section: bytes, btf: Btf) -> None:
    assert not btf.stray
    assert parse(encode(btf)) == btf
    kinds = {type(kind).__name__ for kind in btf.types}
    assert kinds >= {"Int", "Ptr", "Array", "Struct", "Enum", "Fwd", "Typedef", "Modifier", "Func"}
    assert kinds >= {"FuncProto", "Var", "DataSec", "Float", "DeclTag"}
    assert len(encode(btf)) <= len(section)  # clang's holds the strings of BTF.ext, too


def test_functions_and_prototypes(btf: Btf) -> None:
    functions = {func.name: (type_id, proto) for type_id, func, proto in btf.functions()}
    type_id, proto = functions["many"]
    assert btf.prototype(type_id) == proto
    assert [param.name for param in proto.params] == ["a", "n", "f", "r", "u", "s", "flag"]
    assert btf.prototype(0) is None
    assert btf.prototype(proto.returns) is None
    assert btf.prototype(len(btf)) is None
    assert btf.find("many", Func) == type_id
    assert btf.find("many", Var) is None
    flag = btf.resolve(proto.params[6].type)
    assert isinstance(flag, Int)
    assert flag.bool


# --- sizes, alignment and names, as clang has them ---------------------------


def variables(btf: Btf) -> list[tuple[int, Var]]:
    # a static one may come under another name, in parts
    return [
        (type_id, kind)
        for type_id, kind in enumerate(btf.types)
        if isinstance(kind, Var) and kind.linkage == GLOBAL
    ]


def test_sizes_and_alignment_are_clangs(clang: list[str], tmp_path: Path, btf: Btf) -> None:
    checks = [
        f'_Static_assert(sizeof({variable.name}) == {btf.size_of(type_id)}, "size");\n'
        f'_Static_assert(_Alignof(__typeof__({variable.name})) == {btf.align_of(type_id)}, "");'
        for type_id, variable in variables(btf)
    ]
    assert len(checks) >= 9
    section_of(clang, tmp_path, SOURCE + "\n".join(checks))


def test_declarations_are_clangs(clang: list[str], tmp_path: Path, btf: Btf) -> None:
    checks = []
    for _, variable in variables(btf):
        checks.append(f"extern {btf.declare(variable.type, 'same_' + variable.name)};")
        types = f"__typeof__(same_{variable.name}) *, __typeof__({variable.name}) *"
        checks.append(f'_Static_assert(__builtin_types_compatible_p({types}), "");')
    section_of(clang, tmp_path, SOURCE + "\n".join(checks))


@pytest.mark.parametrize(
    ("types", "text"),
    [
        ((Ptr(0),), "void *"),
        ((Ptr(2), Modifier("const", 3), INT32), "const int *"),
        ((Modifier("const", 2), Ptr(3), INT32), "int *const"),
        ((Ptr(2), Array(3, 3, 4), INT32), "int (*)[4]"),
        ((Array(2, 3, 4), Ptr(3), INT32), "int *[4]"),
        ((Ptr(2), FuncProto(0, (Param("a", 3), Param("", 0))), INT32), "void (*)(int, ...)"),
        ((Ptr(2), FuncProto(3, ()), INT32), "int (*)(void)"),
        ((Modifier("type_tag", 2, "user"), INT32), "int"),
        ((Struct("", 0, ()),), "struct (anon)"),
        ((Fwd("u", union=True),), "union u"),
        ((Enum("e", 4, ()),), "enum e"),
        ((Ptr(1),), "(too deep)"),
        ((FuncProto(0, (Param("f", 2),)), Ptr(3), FuncProto(4, ()), INT32), "void (int (*)(void))"),
    ],
)
def test_names_in_c(types: tuple[Int, ...], text: str) -> None:
    assert Btf((Void(), *types)).c_name(1) == text


def test_a_prototype_that_takes_itself_has_a_name() -> None:
    btf = Btf((Void(), Ptr(2), FuncProto(0, (Param("a", 1), Param("b", 1)))))
    name = btf.c_name(2)
    assert "(too deep)" in name
    assert len(name) < 5000


def test_what_has_no_size() -> None:
    for kind in (Void(), Fwd("f"), FuncProto(0, ()), Func("f", 1)):
        btf = Btf((Void(), kind))
        assert btf.size_of(1) is None
        assert btf.align_of(1) == 1
    assert Btf((Void(), Typedef("a", 1))).size_of(1) is None
    assert Btf((Void(), Typedef("a", 1))).align_of(1) == 1
    assert isinstance(Btf((Void(), Typedef("a", 1))).resolve(1), Void)
    assert Btf((Void(),)).size_of(5) is None


def test_an_array_of_itself_is_no_endless_work() -> None:
    inner = tuple(Member("m", 1, 0) for _ in range(200))
    btf = Btf((Void(), Struct("s", 1, inner)))
    start = time.perf_counter()
    assert btf.align_of(1) == 1
    assert time.perf_counter() - start < 1


# --- names of parameters -----------------------------------------------------


def test_fill_parameter_names(clang: list[str], tmp_path: Path) -> None:
    source = "int f(int a, int b) { return a + b; }"
    bare = parse(section_of(clang, tmp_path, source, "-O0"))
    ((_, _, proto),) = bare.functions()
    assert [param.name for param in proto.params] == ["", ""]
    ((_, func, proto),) = fill_parameter_names(bare).functions()
    assert func.name == "f"
    assert [param.name for param in proto.params] == ["arg1", "arg2"]


def test_names_are_filled_in_where_they_lack() -> None:
    variadic = FuncProto(0, (Param("a", 1), Param("", 1), Param("", 0)))
    pointed_to = FuncProto(0, (Param("", 1),))
    btf = fill_parameter_names(
        Btf((Void(), INT32, variadic, Func("f", 2), Func("g", 2), pointed_to, Ptr(5)))
    )
    assert btf[2] == FuncProto(0, (Param("a", 1), Param("arg2", 1), Param("", 0)))
    assert btf[5] == pointed_to


# --- bytes that are no BTF ---------------------------------------------------

GOOD = encode(EVERY_KIND)


def patched(offset: int, form: str, value: int) -> bytes:
    data = bytearray(GOOD)
    struct.pack_into(form, data, offset, value)
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "0 bytes are less than a header"),
        (patched(0, "<H", 0x9FEB), "big-endian BTF is not read"),
        (patched(0, "<H", 1), "magic 0x0001 is not 0xeb9f"),
        (patched(2, "<B", 2), "version 2 is not 1"),
        (patched(4, "<I", 8), "header length 8 does not fit"),
        (patched(4, "<I", 1 << 31), "header length 2147483648 does not fit"),
        (patched(8, "<I", 1), "a section lies outside, or types lie behind strings"),
        (patched(20, "<I", 1 << 31), "a section lies outside"),
        (patched(20, "<I", 0), "strings do not begin and end with a zero byte"),
        (patched(24, "<I", 1 << 20), "string offset 1048576 is beyond the string section"),
        (patched(28, "<I", 0), "type 1 has unknown kind 0"),
        (patched(28, "<I", 77 << 24), "type 1 has unknown kind 77"),
        (patched(28, "<I", 4 << 24 | 0xFFFFFF), "type 1 is cut short"),
        (patched(48, "<I", 99), "type 2 names type 99, which does not exist"),
    ],
)
def test_damaged_btf(data: bytes, message: str) -> None:
    with pytest.raises(BtfError) as caught:
        parse(data)
    assert message in str(caught.value)


def test_every_truncation_is_refused() -> None:
    for length in range(len(GOOD)):
        with pytest.raises(BtfError):
            parse(GOOD[:length])


@settings(max_examples=300)
@given(st.data())
def test_any_change_of_bytes_is_btf_or_an_error(data: st.DataObject) -> None:
    changed = bytearray(GOOD)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(changed) - 1))
        changed[at] = data.draw(st.integers(0, 255))
    try:
        btf = parse(bytes(changed))
    except BtfError:
        return
    assert parse(encode(btf)) == btf
    for type_id, kind in enumerate(btf.types):
        assert all(target < len(btf) for target in references(kind))
        btf.size_of(type_id)
        btf.align_of(type_id)
        btf.c_name(type_id)


@given(st.binary(max_size=200))
def test_any_bytes_are_btf_or_an_error(data: bytes) -> None:
    try:
        parse(data)
    except BtfError:
        return
    assert data[:2] == b"\x9f\xeb"


def test_strings_that_share_a_long_tail_are_refused() -> None:
    count, length = 20_000, 1 << 20
    types = b"".join(struct.pack("<III", at + 1, 8 << 24, 0) for at in range(count))
    strings = b"\0" + b"x" * length + b"\0"
    header = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings))
    start = time.perf_counter()
    with pytest.raises(BtfError, match="strings overlap"):
        parse(header + types + strings)
    assert time.perf_counter() - start < 2


def test_strings_that_are_no_text_are_escaped() -> None:
    data = GOOD.replace(b"double", b"dou\xffle")
    name = next(kind.name for kind in parse(data).types if isinstance(kind, Float))
    assert name == "dou\\xffle"


def test_a_layout_section_is_read_past(section: bytes) -> None:
    _, _, _, size, type_off, type_len, str_off, str_len = struct.unpack_from("<HBBIIIII", section)
    types = section[size + type_off :][:type_len]
    strings = section[size + str_off :][:str_len]
    layout = b"\0\0\0\0" * 20
    header = struct.pack(
        "<HBBIIIIIII", 0xEB9F, 1, 0, 32, 0, type_len, type_len + len(layout), str_len,
        type_len, len(layout),
    )  # fmt: skip
    assert parse(header + types + layout + strings) == parse(section)
    assert strings_of(header + types + layout + strings)(1) == strings_of(section)(1)
