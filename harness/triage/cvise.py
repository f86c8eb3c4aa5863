"""cvise goes on where our own passes end, and asks us of every text whether it will do.

Its interestingness test is a script of a few lines that hands the text's path to us over a
socket: this process has everything loaded, and counts. After so many questions every answer
is no, and cvise comes to its end by itself; so the same text comes out whenever it is asked.
"""

from __future__ import annotations

import os
import selectors
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from harness.model import HarnessError
from harness.toolchain.run import kill_group
from harness.triage.experiments import Subject
from harness.triage.reduce import Interesting, Reduction
from harness.triage.tokens import split

QUESTIONS = 150  # texts that are looked at
PATIENCE = 300.0  # seconds after which cvise is ended
_TEST = """\
#!{python} -IS
import os, socket, sys
with socket.socket(socket.AF_UNIX) as s:
    s.connect({path!r})
    s.sendall(os.path.abspath("input.c").encode() + b"\\n")
    sys.exit(s.recv(1) != b"y")
"""


def with_cvise(
    argv: Sequence[str],
    subject: Subject,
    interesting: Interesting,
    *,
    questions: int = QUESTIONS,
    patience: float = PATIENCE,
    step: Callable[[int], None] = lambda _asked: None,
) -> Reduction:
    """Go on with cvise (*argv* its command) from *subject*, which comes back where it fails."""
    with tempfile.TemporaryDirectory(prefix="crosscheck-") as scratch:
        folder = Path(scratch)
        source = folder / "input.c"
        source.write_text(subject.c, encoding="utf-8", errors="surrogateescape")
        path = str(folder / "questions")
        test = folder / "interesting"
        test.write_text(_TEST.format(python=sys.executable, path=path))
        test.chmod(0o755)
        call = [*argv, "--n", "1", "--timeout", "120", "--no-timing", str(test), "input.c"]
        with socket.socket(socket.AF_UNIX) as server, (folder / "log").open("w+") as log:
            server.bind(path)
            server.listen()
            try:
                process = subprocess.Popen(
                    call, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                    start_new_session=True, env={**os.environ, "TMPDIR": scratch},
                )  # fmt: skip
            except OSError as error:
                raise HarnessError(f"cannot start cvise: {error.strerror}") from None
            try:
                asked, late = _answer(process, server, subject, interesting, questions, patience,
                                      step)  # fmt: skip
            finally:
                kill_group(process.pid)
                process.wait()
            log.seek(0)
            said = log.read().strip().splitlines()
        text = source.read_text(encoding="utf-8", errors="surrogateescape")
    notes: tuple[str, ...] = ()
    if late:
        # what it had by then depends on the machine
        text = subject.c
        notes = (f"cvise did not end in {patience:.0f} s; its text is not used",)
    elif process.returncode:
        notes = (f"cvise failed: {said[-1] if said else process.returncode}",)
    elif asked >= questions:
        notes = (f"cvise ended after {asked} attempts: shorter texts may do",)
    shorter = len(split(text)) < len(split(subject.c))
    found = replace(subject, c=text) if shorter else subject
    return Reduction(found, asked, int(shorter), not notes, notes)


def _answer(
    process: subprocess.Popen[bytes],
    server: socket.socket,
    subject: Subject,
    interesting: Interesting,
    questions: int,
    patience: float,
    step: Callable[[int], None],
) -> tuple[int, bool]:
    """Answer until *process* ends; return how many texts were looked at, and if time ran out."""
    deadline = time.monotonic() + patience
    answers: dict[str, bool] = {}
    with selectors.DefaultSelector() as ready:
        ready.register(server, selectors.EVENT_READ)
        while process.poll() is None:
            if time.monotonic() > deadline:
                return len(answers), True
            if not ready.select(timeout=0.1):
                continue
            with server.accept()[0] as asker:
                text = _asked(asker)
                if text is None:
                    continue
                if text not in answers and len(answers) < questions:
                    answers[text] = interesting([replace(subject, c=text)])[0]
                    step(len(answers))
                try:
                    asker.sendall(b"y" if answers.get(text) else b"n")
                except OSError:
                    continue  # cvise gave that test up
    return len(answers), False


def _asked(asker: socket.socket) -> str | None:
    """Return the text that is asked about, None where it is gone."""
    asker.settimeout(5)
    data = b""
    try:
        while not data.endswith(b"\n"):
            more = asker.recv(4096)
            if not more:
                return None
            data += more
        return Path(os.fsdecode(data[:-1])).read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None
