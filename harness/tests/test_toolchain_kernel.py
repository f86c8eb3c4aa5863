import gzip
import lzma
import struct

import pytest

from harness.model import HarnessError
from harness.toolchain import kernel
from harness.toolchain.apt import Package
from harness.toolchain.roots import Root


def bzimage(packed, sectors=3):
    """An image of the boot protocol 2.15: setup sectors, then *packed* somewhere in the rest."""
    data = bytearray(512 * (sectors + 1) + 16)
    data[0x1F1] = sectors
    data[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", data, 0x206, 0x20F)
    struct.pack_into("<II", data, 0x248, 16, len(packed))
    return bytes(data) + packed + b"behind"


IMAGE = b"\x7fELF" + bytes(range(256)) * 20
SIZE = struct.pack("<I", len(IMAGE))


@pytest.mark.parametrize(
    "packed",
    [lzma.compress(IMAGE) + SIZE, gzip.compress(IMAGE)],
    ids=["xz", "gzip"],
)
def test_the_image_inside_is_found_and_unpacked(packed):
    assert kernel.payload(bzimage(packed)) == IMAGE


def test_zstd_is_unpacked_where_the_machine_has_it():
    # a frame of one raw block: magic, single segment with two bytes of size, block header
    frame = b"\x28\xb5\x2f\xfd" + b"\x60" + struct.pack("<H", len(IMAGE) - 256)
    frame += (len(IMAGE) << 3 | 1).to_bytes(3, "little") + IMAGE
    try:
        kernel.ctypes.CDLL("libzstd.so.1")
    except OSError:
        assert kernel.payload(bzimage(frame + SIZE)) is None
    else:
        assert kernel.payload(bzimage(frame + SIZE)) == IMAGE
        assert kernel.unzstd(frame[:-9], len(IMAGE)) is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        IMAGE,
        bytes(4096),
        bzimage(b""),
        bzimage(b"no compression that is known" + SIZE),
        bzimage(lzma.compress(b"not ELF") + SIZE),
        bzimage(lzma.compress(IMAGE)[:50] + SIZE),
        bzimage(gzip.compress(IMAGE)[:50]),
        bzimage(b"\x28\xb5\x2f\xfd damaged" + b"\xff\xff\xff\xff"),
    ],
)
def test_what_cannot_be_unpacked_is_left_alone(data):
    assert kernel.payload(data) is None


def test_unpacked_keeps_what_it_unpacked(tmp_path, monkeypatch):
    monkeypatch.setenv("CROSSCHECK_CACHE", str(tmp_path / "cache"))
    image = tmp_path / "vmlinuz"
    image.write_bytes(bzimage(lzma.compress(IMAGE) + SIZE))
    first = kernel.unpacked(kernel.Kernel(image, "7.3.4 (ours)"))
    assert first.image.read_bytes() == IMAGE
    inode = first.image.stat().st_ino
    assert kernel.unpacked(kernel.Kernel(image, "7.3.4 (ours)")).image.stat().st_ino == inode
    assert kernel.unpacked(first) == first

    image.write_bytes(b"something else")
    assert kernel.unpacked(kernel.Kernel(image, "x")).image == image


def test_an_image_can_be_named(tmp_path, monkeypatch):
    monkeypatch.setenv("CROSSCHECK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CROSSCHECK_KERNEL", str(tmp_path / "vmlinux"))
    with pytest.raises(HarnessError, match=r"CROSSCHECK_KERNEL.* is no file: name a bzImage"):
        kernel.find_kernel()
    (tmp_path / "vmlinux").write_bytes(IMAGE)
    assert kernel.find_kernel().image == tmp_path / "vmlinux"


def test_nothing_is_fetched_where_that_is_not_wanted(tmp_path, monkeypatch):
    monkeypatch.setenv("CROSSCHECK_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CROSSCHECK_KERNEL", raising=False)
    with pytest.raises(HarnessError, match=r"no Linux 7\.3 .*CROSSCHECK_KERNEL"):
        kernel.find_kernel(fetch=False)
    with pytest.raises(HarnessError, match=r"no qemu-system-x86_64 yet: .*apt install"):
        kernel.find_qemu(fetch=False)


def test_qemu_on_path_comes_first(tmp_path, monkeypatch):
    program = tmp_path / "qemu-system-x86_64"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert kernel.find_qemu(fetch=False) == (str(program),)


def package(name, version="1"):
    return Package(name, version, "amd64")


def test_the_series_that_everything_is_modelled_on_comes_first():
    names = [
        "linux-binary-6.17.8+deb13-amd64",
        "linux-binary-7.4.1-amd64",
        "linux-binary-7.3.4+deb13-amd64",
        "linux-binary-7.3.11+deb13-amd64",
        "linux-binary-8.0-amd64",
        "linux-binary-7.2.9-amd64",
        "linux-binary-odd-amd64",
    ]
    chosen = [p.name.split("-")[2] for p in kernel.kernels([package(name) for name in names])]
    assert chosen == ["7.3.11+deb13", "7.3.4+deb13", "8.0", "7.4.1"]


def test_kernels_of_another_kind_are_not_taken():
    import re

    for name in ("cloud-amd64", "rt-amd64", "amd64-unsigned", "arm64"):
        assert not re.search(kernel.PACKAGES, f"linux-binary-7.3.4+deb13-{name}")
    assert not re.search(kernel.PACKAGES, "linux-binary-unsigned-7.3.4+deb13-amd64")
    assert re.search(kernel.PACKAGES, "linux-binary-7.3.4+deb13-amd64")


def test_a_root_without_a_kernel_is_no_kernel(tmp_path):
    root = Root(tmp_path, "kernel", (package("linux-binary-7.3.4-amd64", "7.3.4-1"),))
    assert kernel.kernel_of(root) is None
    image = root.files / "usr/lib/modules/7.3.4-amd64/vmlinuz"
    image.parent.mkdir(parents=True)
    image.write_bytes(IMAGE)
    found = kernel.kernel_of(root)
    assert found == kernel.Kernel(image, "7.3.4-amd64", "linux-binary-7.3.4-amd64 7.3.4-1")


def test_a_qemu_that_does_not_start_says_so(tmp_path):
    root = Root(tmp_path, "qemu", ())
    assert kernel.check_qemu(root) == "qemu-system-x86_64 is missing"
    launcher = tmp_path / "bin/qemu-system-x86_64"
    launcher.parent.mkdir()
    launcher.write_text("#!/bin/sh\necho no such library >&2; exit 1\n")
    launcher.chmod(0o755)
    assert kernel.check_qemu(root) == "qemu-system-x86_64: no such library"
    launcher.write_text("#!/bin/sh\necho kvm\n")
    assert kernel.check_qemu(root) == "qemu-system-x86_64: no TCG"
    launcher.write_text("#!/bin/sh\necho tcg\n")
    assert kernel.check_qemu(root) is None


def test_btf_of_what_is_no_vmlinux(tmp_path):
    image = tmp_path / "vmlinux"
    assert kernel.kernel_btf(kernel.Kernel(image, "x")) is None
    image.write_bytes(b"not ELF at all")
    assert kernel.kernel_btf(kernel.Kernel(image, "x")) is None
