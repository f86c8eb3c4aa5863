"""Find or fetch a Linux with stack arguments, and the qemu that runs it.

The kernel is Debian's own, the bare image without its modules; qemu is the machine's, or
unpacked into a root of its own. Nothing is installed, and nobody has to be root.
"""

from __future__ import annotations

import ctypes
import gzip
import lzma
import os
import re
import shutil
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from harness.btf import BtfError
from harness.btf_lazy import LazyBtf, parse_lazily, with_symbols
from harness.kallsyms import Symbols
from harness.model import HarnessError
from harness.toolchain.apt import Package
from harness.toolchain.cache import cache_folder, replacing
from harness.toolchain.clang import ask
from harness.toolchain.fetch import Recipe, Suites, fetched, shown
from harness.toolchain.progress import Progress
from harness.toolchain.roots import Program, Root, safe

FIRST = (7, 3)  # the first Linux with stack arguments
ENVIRONMENT = "CROSSCHECK_KERNEL"
QEMU = "qemu-system-x86_64"
SUITES: Suites = (
    (("trixie", "trixie-backports"), "trixie-backports"),
    (("sid",), None),
    (("sid", "experimental"), "experimental"),
)
QEMU_SUITES: Suites = ((("trixie",), None), (("sid",), None), (("bookworm",), None))
PACKAGES = r"^linux-binary-[0-9][^-]*-amd64$"  # neither -cloud and -rt kernels nor unsigned ones

# What Debian's qemu declares to need and runs a kernel without: users, firmware for
# network boot, and the lists of other programs' passwords.
NEEDLESS = (
    r"adduser|passwd|login\.defs|debconf|libdebconf.*|libpam.*|base-passwd|libsemanage.*|libdb5.*|"
    r"openssl-provider-legacy|ipxe-qemu|libsasl2-modules-db|libasound2-data|libaudit.*|libsepol.*|"
    r"perl.*|libc-gconv-.*"
)


@dataclass(frozen=True, slots=True)
class Kernel:
    """A Linux that a guest can run."""

    image: Path  # bzImage, or ELF vmlinux, which boots sooner
    release: str  # "7.3.4+deb13-amd64"; "unknown" for an image somebody named
    package: str = ""  # name and version of the package it came from


def find_kernel(*, fetch: bool = True, progress: Progress | None = None) -> Kernel:
    """Return the kernel for guests: named, fetched earlier, or fetched now.

    ``$CROSSCHECK_KERNEL`` names an image. Raises HarnessError where there is none.
    """
    named = os.environ.get(ENVIRONMENT, "").strip()
    if named:
        path = Path(named).expanduser()
        if not path.is_file():
            raise HarnessError(f"${ENVIRONMENT}: {named} is no file: name a bzImage or vmlinux")
        return unpacked(Kernel(path, "unknown"))
    found = fetched_kernel()
    if found is None and fetch:
        found = shown(kernel_recipe(), progress)
    if found is None:
        raise HarnessError(
            "no Linux 7.3 for the leg `kernel` yet: it is fetched when the leg is asked for, or "
            f"name an image with ${ENVIRONMENT}"
        )
    return unpacked(found)


def fetched_kernel() -> Kernel | None:
    """Return the kernel that was fetched earlier, None where there is none."""
    return fetched(kernel_recipe())


def kernel_of(root: Root) -> Kernel | None:
    """Return the kernel in *root*."""
    package = root.packages[0] if root.packages else None
    for image in root.files.glob("**/modules/*/vmlinuz"):
        name = f"{package.name} {package.version}" if package else ""
        return Kernel(image, image.parent.name, name)
    return None


def kernel_recipe() -> Recipe[Kernel]:
    """Return how to fetch a kernel: of the 7.3 series, or else the newest."""
    return Recipe(
        kind="kernel",
        suites=SUITES,
        names=lambda apt: (
            [f"{package.name}={package.version}"] for package in kernels(apt.candidates(PACKAGES))
        ),
        of=kernel_of,
        check=lambda root: None if kernel_of(root) else "it holds no kernel",
        failure="cannot fetch a kernel ({why}): "
        f"name an image of Linux 7.3 or newer with ${ENVIRONMENT}",
        without=(".*",),
        lacking=f"Linux {FIRST[0]}.{FIRST[1]} or newer",
    )


def kernels(packages: Sequence[Package]) -> list[Package]:
    """Return those of *packages* that are new enough, the best first: 7.3, then the newest."""

    def version(package: Package) -> tuple[int, ...]:
        told = re.match(r"linux-binary-([0-9.]+)", package.name)
        return tuple(int(part) for part in told[1].strip(".").split(".")) if told else ()

    good = [package for package in packages if version(package)[:2] >= FIRST]
    return sorted(good, key=lambda p: (version(p)[:2] == FIRST, version(p)), reverse=True)


# --- the image inside the image ---------------------------------------------


def unpacked(kernel: Kernel) -> Kernel:
    """Return *kernel* with its image unpacked, which saves the guest the work of seconds.

    Where it cannot be unpacked it is left as it is.
    """
    status = kernel.image.stat()
    if kernel.image.read_bytes()[:4] == b"\x7fELF":
        return kernel
    name = safe(f"{kernel.release}-{status.st_size}-{status.st_mtime_ns}")
    folder = cache_folder() / "kernels" / name
    image = folder / "vmlinux"
    if not image.is_file():
        data = payload(kernel.image.read_bytes())
        if data is None:
            return kernel
        with replacing(folder) as new:
            (new / "vmlinux").write_bytes(data)
    return Kernel(image, kernel.release, kernel.package)


def payload(data: bytes) -> bytes | None:
    """Return the ELF image that the bzImage *data* holds (x86 boot protocol, 2.08 and later).

    None for what is no such image, or is compressed in a way nothing here unpacks.
    """
    try:
        if data[0x202:0x206] != b"HdrS":
            return None
        offset, length = struct.unpack_from("<II", data, 0x248)
        start = ((data[0x1F1] or 4) + 1) * 512 + offset
        packed = data[start : start + length]
        (size,) = struct.unpack("<I", packed[-4:])
        if packed.startswith(b"\x28\xb5\x2f\xfd"):
            image = unzstd(packed[:-4], size)
        elif packed.startswith(b"\xfd7zXZ"):
            image = lzma.LZMADecompressor().decompress(packed)
        elif packed.startswith(b"\x1f\x8b"):
            image = gzip.decompress(packed)  # whose own last word is the size
        else:
            return None
    except (struct.error, IndexError, OSError, EOFError, lzma.LZMAError, zlib.error):
        return None
    if image is None or len(image) != size or not image.startswith(b"\x7fELF"):
        return None
    return image


def unzstd(data: bytes, size: int) -> bytes | None:
    """Return *data* decompressed to *size* bytes by the machine's libzstd, None without one."""
    try:
        library = ctypes.CDLL("libzstd.so.1")
    except OSError:
        return None
    library.ZSTD_decompress.restype = ctypes.c_size_t
    library.ZSTD_decompress.argtypes = (
        ctypes.c_void_p,
        ctypes.c_size_t,
        ctypes.c_char_p,
        ctypes.c_size_t,
    )
    if size > 1 << 30:
        return None
    buffer = ctypes.create_string_buffer(size)
    got = library.ZSTD_decompress(buffer, size, data, len(data))
    return buffer.raw if got == size else None


def kernel_btf(kernel: Kernel) -> bytes | None:
    """Return the BTF of *kernel* itself, None where its image could not be unpacked."""
    return kernel_section(kernel, ".BTF")


def kernel_section(kernel: Kernel, name: str) -> bytes | None:
    """Return a section of *kernel*'s image, None where it could not be unpacked or has none."""
    try:
        with kernel.image.open("rb") as file:
            section = ELFFile(file).get_section_by_name(name)
            return bytes(section.data()) if section is not None else None
    except (OSError, ELFError):
        return None


HOST_BTF = Path("/sys/kernel/btf/vmlinux")


def find_kernel_types() -> LazyBtf | None:
    """Return the BTF of the Linux that verdicts are about, None where none is at hand.

    It is that of the image somebody named, of the kernel that was fetched, or of this
    machine's own if that is new enough. Nothing is fetched.
    """
    try:
        kernel = find_kernel(fetch=False)
        return _types_of(kernel.image, kernel.image.stat().st_mtime_ns)
    except (HarnessError, OSError):
        pass
    release = re.match(r"(\d+)\.(\d+)", os.uname().release)
    if release is not None and (int(release[1]), int(release[2])) >= FIRST:
        try:
            return parse_lazily(HOST_BTF.read_bytes())
        except (OSError, BtfError):
            pass
    return None


@cache
def _types_of(image: Path, changed: int) -> LazyBtf | None:
    del changed  # it tells one image from the next at the same place
    kernel = Kernel(image, "")
    data, rodata = kernel_btf(kernel), kernel_section(kernel, ".rodata")
    try:
        symbols = Symbols(rodata) if rodata is not None else None
        return with_symbols(data, symbols) if data is not None else None
    except BtfError:
        return None


# --- qemu -------------------------------------------------------------------


def find_qemu(*, fetch: bool = True, progress: Progress | None = None) -> tuple[str, ...]:
    """Return the argv prefix of qemu: on PATH, fetched earlier, or fetched now.

    Raises HarnessError where there is none.
    """
    path = shutil.which(QEMU)
    if path is not None:
        return (path,)
    found = fetched_qemu()
    if found is None and fetch:
        found = shown(qemu_recipe(), progress)
    if found is None:
        raise HarnessError(f"no {QEMU} yet: {QEMU_HINT}")
    return found


QEMU_HINT = (
    "it is fetched when the leg `kernel` is asked for, or install it "
    "(Debian: apt install qemu-system-x86; Fedora: dnf install qemu-system-x86; "
    "Arch: pacman -S qemu-system-x86)"
)


def fetched_qemu() -> tuple[str, ...] | None:
    """Return the qemu that was fetched earlier, None where there is none that works."""
    return fetched(qemu_recipe())


def qemu_recipe() -> Recipe[tuple[str, ...]]:
    """Return how to fetch qemu."""

    def of(root: Root) -> tuple[str, ...] | None:
        return (str(root.launcher(QEMU)),) if check_qemu(root) is None else None

    return Recipe(
        kind="qemu",
        suites=QEMU_SUITES,
        names=lambda _: [["qemu-system-x86"]],
        of=of,
        check=check_qemu,
        failure=f"cannot fetch {QEMU} ({{why}}): {QEMU_HINT.partition(', or ')[2]}",
        programs=qemu_programs,
        without=(NEEDLESS, ""),
    )


def qemu_programs(root: Root) -> list[Program]:
    """Return the qemu in *root*, which cannot find its firmware itself."""
    folders = ("usr/share/qemu", "usr/share/seabios")
    arguments = [part for folder in folders for part in ("-L", f"{{files}}/{folder}")]
    binaries = root.files.glob(f"usr/bin/{QEMU}")
    return [Program(QEMU, binary, tuple(arguments)) for binary in binaries]


def check_qemu(root: Root) -> str | None:
    """Return what is wrong with the qemu of *root*: it must have TCG and a machine."""
    launcher = root.launcher(QEMU)
    if launcher is None:
        return f"{QEMU} is missing"
    done = ask([str(launcher), "-accel", "help"])
    if done.code != 0 or b"tcg" not in done.stdout:
        return f"{QEMU}: {done.stderr.strip() or 'no TCG'}"
    return None
