"""A triage of BPF text as Markdown and as a page, ready for those who write Linux's verifier."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from importlib import metadata
from typing import Any

from harness.jit import text as x86_text
from harness.model import Crashed, Rejected, Returned, SubImage
from harness.triage import page
from harness.triage.facts import AGREES, LINUX_JIT, LINUX_VERIFIER
from harness.triage.report import AROUND, experiments, first_lines, marked
from harness.triage.text import BUG, POISONED, TextTriage, outcome_text, said
from harness.triage.text_repro import commands, standalone

LOG = 40  # lines of Linux's log shown


def title(result: TextTriage) -> str:
    """Return one line that says what is wrong where."""
    found, linux = result.diagnosis, result.facts.linux
    if found.cause == LINUX_JIT:
        return f"[BPF, x86-64] wrong value: {result.mark.why or found.detail}"
    if found.cause != LINUX_VERIFIER or linux is None:
        return f"{found.cause}: {found.detail}"
    match linux.verdict:
        case Crashed():
            return f"[BPF] verifier: {found.detail}"
        case Rejected(message=message) if message.startswith(BUG):
            return f"[BPF] {message}"
        case Rejected(message=message) if POISONED in message:
            return f"[BPF] verifier refuses a valid program: {message}"
    return f"[BPF] verifier {found.detail}"


def summary(result: TextTriage) -> str:
    """Return one paragraph: who, what, how sure, how small."""
    found, facts = result.diagnosis, result.facts
    words = [f"**{found.cause}** ({found.confidence}): {found.detail}."]
    words.append(
        f"A {result.text.program.type} program of {len(facts.program.insns)} instructions"
        + (f" on Linux {result.release}, x86-64." if result.release else ".")
    )
    if found.suspects:
        words.append(f"Suspects: {', '.join(found.suspects)}.")
    if result.mark.why:
        words.append(f"{result.mark.why[:1].upper()}{result.mark.why[1:]}.")
    if result.attempts and result.text.program != result.case.program:
        words.append(f"Reduced in {result.attempts} attempts.")
    return " ".join(words)


def markdown(result: TextTriage) -> str:
    """Return the whole report."""
    parts = [f"# {title(result)}", summary(result)]
    if result.cause and result.diagnosis.cause != AGREES:
        parts += ["## Cause", result.cause]
    parts += ["## The program", "```\n" + "\n".join(listing(result)) + "\n```"]
    parts += _image(result)
    parts += _to_see(result)
    wanted, seen = expected(result)
    parts += ["## Expected and actual", f"Expected: {wanted}.\n\nActual: {seen}."]
    parts += _log(result)
    parts += experiments(result.diagnosis.experiments)
    parts += ["## Versions", "\n".join(f"- {line}" for line in versions(result))]
    if result.notes:
        parts += ["## Notes", "\n".join(f"- {note}" for note in result.notes)]
    return "\n\n".join(parts) + "\n"


def listing(result: TextTriage) -> list[str]:
    """Return the program, a function after the other, with the mark."""
    program, wrong = result.facts.program, result.mark.slot
    return [
        line
        for sub in program.subprograms
        for line in marked(program, sub, range(sub.start, sub.end), wrong)
    ]


def _image(result: TextTriage) -> list[str]:
    """Return Linux's image, where that is at fault."""
    if result.diagnosis.cause != LINUX_JIT:
        return []
    lines = [f"{n:>6}: {text}" if n else text for n, text, _, _ in _images(result)]
    body = first_lines("\n".join(lines), 2 * LOG)
    return ["## Linux's image", f"```\n{body}\n```"] if lines else []


def _to_see(result: TextTriage) -> list[str]:
    text = standalone(result)
    if none := _no_program(text):
        return ["## To see it", none]
    return [
        "## To see it",
        "`repro.c` loads the program and needs the kernel alone; as root:",
        *_warning(result),
        "```sh\n" + "\n".join(commands()) + "\n```",
        "<details><summary>repro.c</summary>\n\n```c\n" + text.rstrip() + "\n```\n</details>",
    ]


def _no_program(text: str) -> str:
    """Return why there is no program but a comment, *text*; "" where there is one."""
    if not text.startswith("/*"):
        return ""
    why = text.strip().removeprefix("/*").removesuffix("*/").strip()
    return f"No program of its own shows it. {why}"


def _warning(result: TextTriage) -> list[str]:
    linux = result.facts.linux
    if linux is None or not isinstance(linux.verdict, Crashed):
        return []
    return ["**Running it takes the machine down**: use a virtual machine that nobody needs."]


def expected(result: TextTriage) -> tuple[str, str]:
    """Return what should come and what comes, for people."""
    facts, linux = result.facts, result.facts.linux
    if linux is None:
        return "not known", "Linux was not asked"
    ran = all(isinstance(outcome, Returned) for outcome in facts.legs["interp"])
    match linux.verdict:
        case Crashed():
            return "a verdict", said(linux.verdict)
        case Rejected(message=message) if message.startswith(BUG):
            return "acceptance, or a refusal that says what the program does wrong", message
        case Rejected(message=message) if POISONED in message:
            proof = (
                ", and the interpreter, which checks each access, runs to the end" if ran else ""
            )
            return f"acceptance: the memory is the program's own{proof}", message
        case Rejected(message=message):
            return "acceptance", message
    vector = result.diagnosis.vector
    if vector is None or vector not in result.text.vectors:
        return "the same everywhere", said(linux.verdict)
    outcome = linux.outcomes[result.text.vectors.index(vector)]
    wanted = "what the verifier knows to be stored there"
    if result.diagnosis.cause == LINUX_VERIFIER:
        wanted = "a refusal; accepted, what the verifier knows to be stored there"
    return wanted, f"accepted; {outcome_text(outcome)}"


def _log(result: TextTriage) -> list[str]:
    linux = result.facts.linux
    if linux is None or not linux.log or not isinstance(linux.verdict, Rejected):
        return []
    lines = [line for line in linux.log.splitlines() if line.strip()]
    at = next((n for n, line in enumerate(lines) if linux.verdict.message in line), len(lines) - 1)
    start = max(0, at - AROUND)
    body = "\n".join(lines[start : at + 1])
    return ["## The verifier's log", f"```\n{first_lines(body, LOG)}\n```"]


def versions(result: TextTriage) -> list[str]:
    """Return what was involved."""
    linux = [f"Linux {result.release} (x86-64, in qemu)"] if result.release else []
    return [*linux, f"crosscheck {metadata.version('crosscheck')}"]


# --- the page -----------------------------------------------------------------------


def html(result: TextTriage) -> str:
    """Return the page: the program, our x86 and Linux's side by side, and the rest."""
    name = escape(title(result))
    program, wrong = result.facts.program, result.mark.slot
    parts = [f"<h1>{name}</h1>", page.verdict(result.diagnosis), page.sentence(summary(result))]
    if result.cause and result.diagnosis.cause != AGREES:
        parts += ["<h2>Cause</h2>"]
        parts += [page.sentence(text) for text in result.cause.split("\n\n")]
    rows = [("", line, None, _kind(line)) for line in listing(result)]
    sides: list[tuple[str, Sequence[page.Row]]] = [("BPF", rows)]
    ours = page.x86(program, wrong)
    if len(ours) > len(program.subprograms):  # more than names
        sides.append(("our x86-64 (JIT)", ours))
    if result.facts.linux is not None and result.facts.linux.images:
        sides.append(("Linux's x86-64", list(_images(result))))
    parts += page.side_by_side(sides, result.mark.why)
    wanted, seen = expected(result)
    parts.append("<h2>Expected and actual</h2>")
    parts.append(page.table(("expected", "actual"), [(wanted, seen)]))
    for text in _log(result)[1:]:
        parts += ["<h2>The verifier's log</h2>", f"<pre>{escape(text[4:-4])}</pre>"]
    rows_ = [(e.name, e.result) for e in result.diagnosis.experiments]
    parts += ["<h2>Experiments</h2>", page.table(("experiment", "result"), rows_)]
    parts += _html_to_see(result)
    parts.append(f"<p>{escape(', '.join(versions(result)))}</p>")
    parts += [f"<p>Note: {escape(note)}</p>" for note in result.notes]
    return page.document(name, parts)


def _html_to_see(result: TextTriage) -> list[str]:
    text = standalone(result)
    if none := _no_program(text):
        return ["<h2>To see it</h2>", page.sentence(none)]
    return [
        "<h2>To see it</h2>",
        *map(page.sentence, _warning(result)),
        f"<pre>{escape(chr(10).join(commands()))}</pre>",
        "<details><summary>repro.c</summary>",
        f"<pre>{escape(text)}</pre></details>",
    ]


def _kind(line: str) -> str:
    if line.startswith("-->"):
        return "wrong"
    return "" if line.startswith(" ") else "name"


def _images(result: TextTriage) -> Iterator[page.Row]:
    assert result.facts.linux is not None
    for image in result.facts.linux.images:
        yield "", f"{image.name}:", None, "name"
        for at, _, text in x86_text.disassemble(SubImage(image.name, image.code, ())):
            yield f"{at:x}", text, None, ""


# --- for people and programs --------------------------------------------------------


def as_json(result: TextTriage) -> dict[str, Any]:
    """Return *result* in the form of ``triage --json``."""
    found = result.diagnosis
    return {
        "function": result.facts.program.name,
        "build": "",
        "compiler": "",
        "cause": found.cause,
        "detail": found.detail,
        "confidence": found.confidence,
        "suspects": list(found.suspects),
        "diverges": found.cause != AGREES,
        "lines": result.lines,
        "asm": result.text.program.asm,
        "vector": found.vector.hex() if found.vector is not None else None,
        "wrong": result.mark.slot,
        "pass": None,
        "first_bad": None,
        "kernel": result.release or None,
        "experiments": [[e.name, e.result] for e in found.experiments],
        "notes": list(result.notes),
        "seconds": round(result.seconds, 1),
    }


def describe(result: TextTriage, row: dict[str, Any]) -> str:
    """Return a few lines for people."""
    lines = [
        f"{result.name}: {row['cause']} ({row['confidence']})",
        f"  {row['detail']}",
        f"  {row['lines']} lines of BPF text, {row['seconds']} s",
    ]
    if result.mark.why:
        lines.append(f"  {result.mark.why}")
    lines += [f"  note: {note}" for note in result.notes]
    lines.append(f"  report: {row['report']}")
    return "\n".join(lines)
