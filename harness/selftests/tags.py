"""What the tags of a program of the kernel's selftests say the verifier does with it.

The tags are BTF declaration tags ``comment:N:test_...`` of the program's function, as
``progs/bpf_misc.h`` writes them; they are read, and messages are looked for, as
``test_loader.c`` does it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from harness.btf import Btf, DeclTag

_TAG = re.compile(r"comment:(\d+):(.*)", re.DOTALL)
ARCHITECTURE = "X86_64"

# fmt: off
FLAGS = {  # include/uapi/linux/bpf.h
    "BPF_F_STRICT_ALIGNMENT":    1 << 0,
    "BPF_F_ANY_ALIGNMENT":       1 << 1,
    "BPF_F_TEST_RND_HI32":       1 << 2,
    "BPF_F_TEST_STATE_FREQ":     1 << 3,
    "BPF_F_SLEEPABLE":           1 << 4,
    "BPF_F_XDP_HAS_FRAGS":       1 << 5,
    "BPF_F_TEST_REG_INVARIANTS": 1 << 7,
}
# fmt: on


@dataclass(frozen=True, slots=True)
class Message:
    """A pattern that the log holds, or must not hold between its neighbours."""

    pattern: str  # text, with regular expressions in {{ }}
    negative: bool = False


@dataclass(frozen=True, slots=True)
class Spec:
    """What is expected of one program, loaded with all rights."""

    verdict: str | None = None  # "accept" or "reject"; None: no tag tells
    messages: tuple[Message, ...] = ()  # in order
    log_level: int = 0
    flags: int = 0
    architectures: tuple[str, ...] = ()  # empty: all
    jit: bool = True  # False: only where there is no JIT
    auxiliary: bool = False  # not a test of its own
    names: str = ""  # object whose BTF has the names of parameters that this one lacks

    @property
    def judged(self) -> bool:
        """Whether it is a test, here, of a program with all rights."""
        here = not self.architectures or ARCHITECTURE in self.architectures
        return here and not self.auxiliary


def tags(btf: Btf, type_id: int) -> list[str]:
    """Return the test tags of function *type_id*, in the order of the source."""
    found = []
    for tag in btf.types:
        if isinstance(tag, DeclTag) and tag.type == type_id and tag.component == -1:
            told = _TAG.match(tag.name)
            if told is not None:
                found.append((int(told[1]), told[2]))
    return [text for _, text in sorted(found)]


def read_spec(texts: Sequence[str]) -> Spec | None:
    """Return what the tags *texts* say (``parse_test_spec``), None for no such test.

    A program that is tested only without rights is no test here.
    """
    verdict: str | None = None
    messages: list[Message] = []
    level = flags = 0
    architectures: list[str] = []
    jit, auxiliary, privileged, other = True, False, False, False
    names = ""
    for text in texts:
        key, _, value = text.partition("=")
        match key:
            case "test_expect_failure":
                verdict, privileged = "reject", True
            case "test_expect_success":
                verdict, privileged = "accept", True
            case "test_expect_msg" | "test_expect_not_msg":
                messages.append(Message(value, key == "test_expect_not_msg"))
                privileged = True
            case "test_auxiliary":
                auxiliary = privileged = True
            case "test_log_level":
                level = int(value, 0)
            case "test_prog_flags":
                clear, name = value.startswith("!"), value.removeprefix("!")
                bits = FLAGS[name] if name in FLAGS else int(name, 0)
                flags = flags & ~bits if clear else flags | bits
            case "test_arch":
                architectures.append(value)
            case "load_mode":
                jit = value != "no_jited"
            case "test_btf_func_path":
                names = value
            case "test_retval" | "test_expect_xlated" | "test_jited":
                privileged = True
            case _:
                other = other or key.endswith("_unpriv")
    if not texts or (other and not privileged):
        return None
    return Spec(
        verdict or "accept",
        tuple(messages),
        level,
        flags,
        tuple(architectures),
        jit,
        auxiliary,
        names,
    )


# --- messages in a log ------------------------------------------------------


@lru_cache(maxsize=4096)
def expression(pattern: str) -> re.Pattern[str]:
    """Return the regular expression of *pattern* (``compile_regex``), POSIX's with newlines."""
    parts = re.split(r"\{\{(.*?)\}\}", pattern, flags=re.DOTALL)
    made = [re.escape(part) if at % 2 == 0 else _posix(part) for at, part in enumerate(parts)]
    return re.compile("".join(made), re.MULTILINE)


def _posix(text: str) -> str:
    for name, members in (("digit", "0-9"), ("alnum", "0-9A-Za-z"), ("alpha", "A-Za-z")):
        text = text.replace(f"[:{name}:]", members)
    return text.replace("[:space:]", r"\s").replace("[^", r"[^\n")


def unmatched(log: str, messages: Sequence[Message]) -> Message | None:
    """Return the first of *messages* that *log* does not bear out (``validate_msgs``)."""
    spans: list[tuple[int, int] | None] = [None] * len(messages)
    at = 0
    for number, message in enumerate(messages):
        if not message.negative:
            found = expression(message.pattern).search(log, at)
            if found is not None:
                spans[number] = found.span()
                at = found.end()
    start = 0
    for number, message in enumerate(messages):
        span = spans[number]
        if not message.negative:
            if span is None:
                return message
            start = span[1]
            continue
        following = (n for n in range(number, len(messages)) if not messages[n].negative)
        next_span = spans[next(following, number)]
        end = next_span[0] if next_span is not None else len(log)
        found = expression(message.pattern).search(log, start)
        if found is not None and found.end() <= end:
            return message
    return None
