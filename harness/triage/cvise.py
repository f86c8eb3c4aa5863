"""cvise goes on where our own passes end, and asks us of every text whether it will do.

Its interestingness test is a script of a few lines that hands the text's path to us over a
socket: this process has everything loaded, and counts. After so many questions cvise is ended,
and the shortest text that would do counts; so the same text comes out whenever it is asked.
"""

from __future__ import annotations

import os
import selectors
import shlex
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

QUESTIONS = 100  # texts that are looked at
PATIENCE = 300.0  # seconds after which cvise is ended
LONG = 60  # characters of a folder's name: sockets in it, ours and cvise's, may have 107 in all
_TEST = """\
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
    """Go on with cvise (*argv* its command) from *subject*, which comes back where it fails.

    Raises HarnessError where cvise cannot be started.
    """
    short = "/tmp" if len(tempfile.gettempdir()) > LONG else None
    with tempfile.TemporaryDirectory(prefix="crosscheck-", dir=short) as scratch:
        folder = Path(scratch)
        source = folder / "input.c"
        source.write_text(subject.c, encoding="utf-8", errors="surrogateescape")
        path = str(folder / "questions")
        asks = folder / "asks.py"
        asks.write_text(_TEST.format(path=path))
        test = folder / "interesting"
        # not in the first line itself, which takes no spaces
        test.write_text(f"#!/bin/sh\nexec {shlex.join([sys.executable, '-IS', str(asks)])}\n")
        test.chmod(0o755)
        call = [*argv, "--n", "1", "--timeout", "120", "--no-timing", str(test), "input.c"]
        with socket.socket(socket.AF_UNIX) as server, (folder / "log").open("w+") as log:
            try:
                server.bind(path)
                server.listen()
                process = subprocess.Popen(
                    call, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                    start_new_session=True, env={**os.environ, "TMPDIR": scratch},
                )  # fmt: skip
            except OSError as error:
                raise HarnessError(f"cannot start cvise: {error.strerror or error}") from None
            try:
                answers, late = _answer(process, server, subject, interesting, questions, patience,
                                        step)  # fmt: skip
            finally:
                kill_group(process.pid)
                process.wait()
            log.seek(0)
            said = log.read().strip().splitlines()
    asked = len(answers)
    fit = [text for text, good in answers.items() if good]
    text = min(fit, key=lambda text: len(split(text)), default=subject.c)
    notes: tuple[str, ...] = ()
    if late:
        # what it had by then depends on the machine
        text = subject.c
        notes = (f"cvise did not end in {patience:.0f} s; its text is not used",)
    elif asked >= questions:
        notes = (f"cvise ended after {asked} attempts: shorter texts may do",)
    elif process.returncode:
        notes = (f"cvise failed: {said[-1] if said else process.returncode}",)
        text = subject.c
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
) -> tuple[dict[str, bool], bool]:
    """Answer until *process* ends, or *questions* texts were looked at.

    Returns which of them would do, and whether time ran out.
    """
    deadline = time.monotonic() + patience
    answers: dict[str, bool] = {}
    with selectors.DefaultSelector() as ready:
        ready.register(server, selectors.EVENT_READ)
        while process.poll() is None:
            if time.monotonic() > deadline:
                return answers, True
            if not ready.select(timeout=0.1):
                continue
            with server.accept()[0] as asker:
                text = _asked(asker)
                if text is None:
                    continue
                if text not in answers:
                    if len(answers) == questions:
                        return answers, False
                    answers[text] = interesting([replace(subject, c=text)])[0]
                    step(len(answers))
                try:
                    asker.sendall(b"y" if answers[text] else b"n")
                except OSError:
                    continue  # cvise gave that test up
    return answers, False


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
