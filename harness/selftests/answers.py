"""What Linux said to a file of the selftests, kept by what was asked.

A guest takes longer to start than our side takes for a file, and its answers change only
with the object, the kernel, or how the leg asks.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import harness
from harness.legs.kernel import KernelAnswer, KernelImage
from harness.model import Accepted, Rejected, Unknown, Verdict
from harness.selftests.judge import File
from harness.toolchain.builds import store
from harness.toolchain.cache import cache_folder

ASKING = ("legs/*.py", "load/*.py", "isa/codec.py", "btf.py")  # what shapes a question


@cache
def way_of_asking() -> bytes:
    """Return a digest of the code that asks."""
    home = Path(harness.__file__).parent
    digest = hashlib.sha256()
    for pattern in ASKING:
        for path in sorted(home.glob(pattern)):
            digest.update(path.read_bytes())
    return digest.digest()


def place(file: File, kernel: str) -> Path:
    """Return where the answers of *kernel* (what tells it from others) to *file* are kept."""
    digest = hashlib.sha256(way_of_asking())
    digest.update(f"{kernel}\0{file.name}\0".encode())
    digest.update(file.data)
    for question in file.questions:
        asked = (question.program.name, question.spec.flags, question.spec.log_level)
        digest.update(repr(asked).encode())
    return cache_folder() / "selftests" / "answers" / digest.hexdigest()


def find(path: Path) -> list[KernelAnswer] | None:
    """Return the answers kept at *path*, None where there are none."""
    try:
        return [_answer(each) for each in json.loads(zlib.decompress(path.read_bytes()))]
    except (OSError, ValueError, KeyError, TypeError, zlib.error):
        return None


def keep(path: Path, answers: Sequence[KernelAnswer]) -> None:
    """Keep *answers* at *path*; a full disk is no fault."""
    data = zlib.compress(json.dumps([_fields(each) for each in answers]).encode(), 1)
    try:
        store(path, data)
    except OSError:
        return


def _fields(answer: KernelAnswer) -> dict[str, Any]:
    verdict: list[Any] = []
    match answer.verdict:
        case Accepted():
            verdict = ["accept"]
        case Rejected(insn=insn, message=message):
            verdict = ["reject", insn, message]
        case Unknown(why=why):
            verdict = ["unknown", why]
    return {
        "verdict": verdict,
        "log": answer.log,
        "errno": answer.errno,
        "truncated": answer.truncated,
        "translated": answer.translated.hex(),
        "images": [[each.name, each.address, each.code.hex()] for each in answer.images],
        "processed": answer.processed,
    }


def _answer(fields: dict[str, Any]) -> KernelAnswer:
    verdict: Verdict
    match fields["verdict"]:
        case ["accept"]:
            verdict = Accepted()
        case ["reject", insn, message]:
            verdict = Rejected(insn, message)
        case [_, why]:
            verdict = Unknown(why)
        case other:
            raise ValueError(other)
    images = tuple(
        KernelImage(name, address, bytes.fromhex(code)) for name, address, code in fields["images"]
    )
    return KernelAnswer(
        verdict,
        log=fields["log"],
        errno=fields["errno"],
        truncated=fields["truncated"],
        translated=bytes.fromhex(fields["translated"]),
        images=images,
        processed=fields["processed"],
    )
