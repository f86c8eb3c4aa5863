"""What Linux said to the programs of a file of the selftests, kept by what was asked.

A guest takes longer to start than our side takes for a file, and an answer changes only
with the program and the kernel. That Linux was not asked, or did not say, is asked again
when the code that asks has changed.
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
from harness.isa.codec import encode
from harness.legs.kernel import KernelAnswer, KernelImage
from harness.legs.kernel_request import encode_btf
from harness.model import Accepted, Rejected, Unknown, Verdict
from harness.selftests.judge import File, Question
from harness.toolchain.builds import store
from harness.toolchain.cache import cache_folder

FORM = "crosscheck answers 1"  # another form: nothing that was kept counts
ASKING = ("legs/agent*", "legs/kernel*", "legs/guest.py")


@cache
def way_of_asking() -> str:
    """Return a digest of the code that asks."""
    home = Path(harness.__file__).parent
    digest = hashlib.sha256()
    for pattern in ASKING:
        for path in sorted(home.glob(pattern)):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def keys(file: File) -> list[str]:
    """Return what tells each question of *file* from any other."""
    btfs: dict[int, bytes] = {}
    found = []
    for question in file.questions:
        btf = question.program.btf
        if btf is not None and id(btf) not in btfs:
            btfs[id(btf)] = hashlib.sha256(encode_btf(btf, ())[0]).digest()
        found.append(_key(question, btfs.get(id(btf), b"")))
    return found


def _key(question: Question, btf: bytes) -> str:
    program, spec = question.program, question.spec
    digest = hashlib.sha256(encode(program.insns) + btf)
    asked = (FORM, program.name, program.section, program.type, program.attach, program.sleepable)
    rest = (program.subprograms, program.maps, program.kfuncs, program.lines)
    digest.update(repr((asked, rest, spec.flags, spec.log_level)).encode())
    return digest.hexdigest()


class Answers:
    """What one kernel said to the programs of one file."""

    def __init__(self, file: File, kernel: str) -> None:
        """*kernel* is what tells it from others."""
        name = hashlib.sha256(f"{kernel}\0{file.name}".encode()).hexdigest()
        self.path = cache_folder() / "selftests" / "answers" / name
        self._keys = keys(file)
        self._kept: dict[str, Any] = {}
        try:
            kept = json.loads(zlib.decompress(self.path.read_bytes()))
            self._kept = {key: kept[key] for key in self._keys if key in kept}
        except (OSError, ValueError, TypeError, zlib.error):
            pass
        self.found = [self._find(key) for key in self._keys]  # None: to be asked

    def _find(self, key: str) -> KernelAnswer | None:
        try:
            fields = self._kept[key]
            answer = _answer(fields)
        except (KeyError, ValueError, TypeError):
            return None
        if isinstance(answer.verdict, Unknown) and fields["asked"] != way_of_asking():
            return None
        return answer

    def keep(self, answers: Sequence[KernelAnswer]) -> None:
        """Keep *answers*, one for each question; a full disk is no fault."""
        for key, answer in zip(self._keys, answers, strict=True):
            self._kept[key] = _fields(answer)
        try:
            store(self.path, zlib.compress(json.dumps(self._kept).encode(), 1))
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
        "asked": way_of_asking(),
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
