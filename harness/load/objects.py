"""An object as libbpf opens it: bytes to programs, maps and BTF."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from harness.btf import Btf, BtfError, fill_parameter_names, strings_of
from harness.btf import parse as parse_btf
from harness.btf_lazy import LazyBtf
from harness.load import btf_ext, elf, fixups, maps
from harness.load.errors import LoadError
from harness.load.linking import TEXT, Linker, Refused, read_functions
from harness.model import MapDef, Program


@dataclass(frozen=True)
class Object:
    """A loaded object; ``link`` makes a program of any of its functions."""

    path: str
    programs: tuple[Program, ...]  # functions in sections other than .text, in their order
    refused: tuple[Refused, ...]  # programs that only a kernel could complete, and why
    functions: tuple[str, ...]  # names of the functions in .text, in their order
    btf: Btf | None  # as libbpf hands it to the kernel
    maps: tuple[MapDef, ...]
    license: str
    notes: tuple[str, ...]  # what was passed over, for people
    _linker: Linker = field(repr=False, compare=False)

    def link(self, name: str, program_type: str = "unspec") -> Program:
        """Return the function *name* with all that it reaches, as a program.

        This is for functions in .text, which libbpf takes for subprograms only.
        """
        for index, function in enumerate(self._linker.functions):
            if function.name == name:
                program = self._linker.link(index)
                if isinstance(program, Refused):
                    raise LoadError(f"{self.path}: {name}: {program.why}")
                if function.part.name == TEXT:
                    program = replace(program, type=program_type)
                return program
        raise LoadError(f"{self.path}: no function {name}")


NAMES_FILLED = "nameless BTF parameters were given names, without which Linux refuses the BTF"


def load_object(
    data: bytes,
    *,
    path: str = "<object>",
    fill_names: bool = False,
    kernel_btf: LazyBtf | None = None,
) -> Object:
    """Return the programs of the BPF object in *data*; ``LoadError`` where libbpf would refuse.

    *path* is for messages, and its stem is part of the names of data maps. With
    *fill_names* the nameless parameters that clang leaves in -O0 code get names, without
    which the kernel refuses the BTF. *kernel_btf* are the types of the kernel that the
    programs are for: CO-RE relocations and addresses of kernel variables need them.
    """
    file = elf.read(data, path)
    notes: list[str] = []
    _check_sections(file)
    btf, ext = _read_btf(file, notes)
    btf, externs = fixups.collect_externs(file, btf)
    if btf is not None:
        btf = fixups.place_variables(file, btf)
    placed = maps.read_maps(file, btf, externs)
    functions = read_functions(file)
    if btf is not None:
        hidden = (f.name for f in functions if f.part.name == TEXT and f.hidden)
        btf = fixups.make_static(btf, hidden)
        if fill_names:
            nameless, btf = btf, fill_parameter_names(btf)
            if btf != nameless:
                notes.append(NAMES_FILLED)
    part = file.part("license")
    license_ = _license(part.data) if part is not None else ""
    linker = Linker(file, functions, placed, externs, btf, ext, kernel_btf, license_)
    programs, refused = [], []
    for index, function in enumerate(functions):
        if function.part.name == TEXT:
            continue
        program = linker.link(index)
        if isinstance(program, Refused):
            refused.append(program)
        else:
            programs.append(program)
    return Object(
        path=path,
        programs=tuple(programs),
        refused=tuple(refused),
        functions=tuple(f.name for f in functions if f.part.name == TEXT),
        btf=btf,
        maps=tuple(each.map for each in placed),
        license=license_,
        notes=tuple(notes),
        _linker=linker,
    )


def _license(data: bytes) -> str:
    return data.partition(b"\0")[0].decode("utf-8", "backslashreplace")


def _check_sections(file: elf.Elf) -> None:
    for part in file.parts:
        if part.name == "maps":
            raise LoadError(
                f"{file.path}: legacy map definitions in section maps; define them in "
                'SEC(".maps") with BTF'
            )


def _read_btf(file: elf.Elf, notes: list[str]) -> tuple[Btf | None, btf_ext.BtfExt]:
    """Return BTF and BTF.ext; one that is damaged is passed over, as libbpf does."""
    ext = btf_ext.BtfExt()
    part = file.part(".BTF")
    if part is None:
        return None, ext
    try:
        btf = parse_btf(part.data)
    except BtfError as fault:
        notes.append(f"damaged BTF: {fault}; it is ignored")
        return None, ext
    part = file.part(".BTF.ext")
    if part is not None:
        btf_part = file.part(".BTF")
        assert btf_part is not None
        try:
            ext = btf_ext.parse(part.data, strings_of(btf_part.data))
        except BtfError as fault:
            notes.append(f"damaged {fault}; it is ignored")
    return btf, ext
