"""A triage as Markdown, ready for an issue tracker: nothing in it needs us to be read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

from harness.isa.insn import Call, High
from harness.isa.targets import function_target
from harness.model import (
    Outcome,
    OutOfFuel,
    Program,
    Returned,
    Subprogram,
    Trapped,
    Unknown,
    Vector,
)
from harness.source import driver
from harness.source.layout import Layout
from harness.toolchain.tools import llvmlite_llvm, program_version
from harness.triage import bisect as narrowing
from harness.triage.facts import (
    AGREES,
    CLANG,
    CRASH,
    INVALID,
    REFUSED,
    UNDEFINED,
    WRONG_CODE,
    Experiment,
    Facts,
)
from harness.triage.insn_text import insn_text
from harness.triage.lockstep import Lockstep, slots, value_text, x86_lines
from harness.triage.repro import commands, inputs, standalone
from harness.triage.session import Triage

BY_DESIGN = "known, by design"  # in place of who is wrong: nobody is to mend anything
SELECTED = 60  # lines of machine code shown
# in the words of ``passing.first_difference``
_PASSED = re.compile(
    r"argument (\d+) \((\S+)\) at the call of (\w+) is (?:[^;]*? above the (\d+) bits of its type)?"
)
AROUND = 12  # instructions shown on either side of the wrong one


def title(result: Triage) -> str:
    """Return one line that says what is wrong where."""
    config = result.subject.config
    version = result.target.compiler.version
    arguments = ""
    if result.facts.planned.layouts:
        count = len(result.facts.planned.layouts[0].signature.parameters)
        arguments = f", function of {count} arguments"
    match result.diagnosis.cause:
        case cause if cause == WRONG_CODE:
            where = f"at -O{config.opt} -mcpu={config.mcpu}"
            passed = _PASSED.search(result.wrong_why)
            if passed is None:
                return f"[BPF] wrong code {where}{arguments}"
            number, place, callee, upper = passed.groups()
            what = f"argument {number} of {callee}, in {'a stack slot' if '-' in place else place},"
            short = f"is not extended from {upper} bits" if upper else "is wrong"
            return f"[BPF] wrong code {where}: {what} {short}"
        case cause if cause == CRASH and result.subject.handed:
            return f"[BPF] clang {version}: {result.diagnosis.detail}"
        case cause if cause == CRASH:
            return f"[BPF] clang {version} fails on valid code at -O{config.opt}{arguments}"
        case cause if cause == REFUSED:
            message = result.diagnosis.detail
            known = f"{BY_DESIGN}: " if result.by_design else ""
            build = f"-O{config.opt} -mcpu={config.mcpu}"
            return f"[BPF] {known}verifier refuses code of {build}: {message}"
    return f"{result.diagnosis.cause}: {result.diagnosis.detail}"


def markdown(result: Triage) -> str:
    """Return the whole report."""
    parts = [f"# {title(result)}", summary(result)]
    if result.known and result.diagnosis.cause in CLANG:
        parts += ["## Cause", result.known]
    parts += ["## The C", f"```c\n{result.subject.c.rstrip()}\n```"]
    parts += _compile(result)
    parts += _values(result)
    parts += _code(result)
    parts += _trace(result)
    parts += _bisection(result)
    parts += _validity(result)
    parts += experiments(result.diagnosis.experiments)
    parts += _versions(result)
    if result.notes:
        parts += ["## Notes", "\n".join(f"- {note}" for note in result.notes)]
    return as_in_repro(result, "\n\n".join(parts) + "\n")


def as_in_repro(result: Triage, text: str) -> str:
    """Return *text* with our driver called as it is in repro.c."""
    text = text.replace(driver.entry(result.subject.function), "entry")
    return text.replace("crosscheck_ctx", "ctx").replace("crosscheck_license:", "gpl:")


def summary(result: Triage) -> str:
    """Return one paragraph: who, what, how sure."""
    diagnosis, config = result.diagnosis, result.subject.config
    blamed = f"**{diagnosis.cause}** ({diagnosis.confidence})"
    if result.by_design:
        blamed = f"**{BY_DESIGN}** ({diagnosis.confidence})"
        if diagnosis.cause == REFUSED:
            blamed += ": the verifier refuses code that clang may make"
    words = [
        f"{blamed}: {diagnosis.detail}.",
        f"Function `{result.subject.function}`, clang {result.target.compiler.version}, "
        f"`-O{config.opt} -mcpu={config.mcpu}`, {config.linkage} linkage.",
    ]
    if diagnosis.cause == WRONG_CODE:
        words += _instead(result)
    if diagnosis.suspects:
        words.append(f"Suspects: {', '.join(diagnosis.suspects)}.")
    if result.wrong_why:
        words.append(f"{result.wrong_why[:1].upper()}{result.wrong_why[1:]}.")
    if result.reduction:
        lines = result.reduction.lines
        words.append(f"Reduced to {lines} lines of C in {result.reduction.attempts} attempts.")
    if diagnosis.cause == AGREES and result.target.finding:
        words.append("The finding no longer shows; it is kept.")
    return " ".join(words)


def _instead(result: Triage) -> list[str]:
    """Return a sentence on what comes out and what should."""
    facts, vector = result.facts, result.diagnosis.vector
    if not facts.planned.layouts or vector is None:
        return []
    place = facts.planned.layouts[0]
    legs = dict(legs_of(facts, vector))
    truth = next((o for name, o in legs.items() if name.startswith("native")), None)
    actual = legs.get("interp")
    if truth is None or actual is None:
        return []
    given = ", ".join(f"{path} = {value}" for path, value in inputs(place, vector))
    wrong, right = outcome_text(place, actual, truth), outcome_text(place, truth, actual)
    return [f"With `{given}` BPF gives `{wrong}`; `{right}` is right."]


def _compile(result: Triage) -> list[str]:
    text = standalone(result)
    return [
        "## To see it",
        "`repro.c` below is the C above with a BPF program and a `main` that call it.",
        "```sh\n" + "\n".join(commands(result)) + "\n```",
        "<details><summary>repro.c</summary>\n\n```c\n" + text.rstrip() + "\n```\n</details>",
    ]


def outcome_text(place: Layout, outcome: Outcome, other: Outcome | None = None) -> str:
    """Return *outcome* for people: the result, and what else differs from *other*."""
    match outcome:
        case Returned(ctx=ctx):
            words = []
            result = place.result
            if result is not None:
                value = int.from_bytes(ctx[result.offset : result.end], "little")
                words.append(f"{value:#x}")
            if isinstance(other, Returned):
                start = result.end if result else 0
                for at in range(start, len(ctx)):
                    if ctx[at] != other.ctx[at] and place.mask.bits[at]:
                        words.append(f"{place.describe(at)}: byte {at} is {ctx[at]:#04x}")
                        break
            return ", ".join(words) or "returned"
        case Trapped(kind=kind, where=where):
            return f"trapped: {kind} ({where})"
        case OutOfFuel():
            return "does not end"
        case Unknown(why=why):
            return f"unknown: {why}"


def legs_of(facts: Facts, vector: Vector | None) -> list[tuple[str, Outcome]]:
    """Return leg and outcome on *vector*."""
    if vector is None or vector not in facts.vectors:
        return []
    number = list(facts.vectors).index(vector)
    legs = {**facts.natives, **facts.gccs, **facts.legs}
    return [(name, seen[number]) for name, seen in legs.items() if number < len(seen)]


def _values(result: Triage) -> list[str]:
    facts, vector = result.facts, result.diagnosis.vector
    if not facts.planned.layouts or vector is None:
        return []
    place = facts.planned.layouts[0]
    rows = legs_of(facts, vector)
    given = ", ".join(f"`{path} = {value}`" for path, value in inputs(place, vector))
    truth = next((o for name, o in rows if name.startswith("native")), None)
    lines = ["| leg | result |", "|---|---|"]
    lines += [f"| {name} | {outcome_text(place, o, truth)} |" for name, o in rows]
    head = "Expected: what native code does. Actual: what BPF code does."
    if result.diagnosis.cause not in CLANG:
        head = "What each way to run it gives."
    return ["## Expected and actual", f"Input: {given or 'none'}.", head, "\n".join(lines)]


def listing(program: Program, wrong: int | None, sub: int | None = None) -> list[str]:
    """Return the instructions around *wrong*, marked, or those of subprogram *sub*."""
    if wrong is not None:
        index = program.subprogram_at(wrong)
        start, end = max(0, wrong - AROUND), wrong + AROUND + 1
        here = program.subprograms[index]
        start, end = max(start, here.start), min(end, here.end)
    else:
        here = program.subprograms[sub or 0]
        start, end = here.start, min(here.end, here.start + 3 * AROUND)
    return list(marked(program, here, range(start, end), wrong))


def marked(
    program: Program, sub: Subprogram, slots: Iterable[int], wrong: int | None
) -> Iterator[str]:
    """Yield the name of *sub* with its prototype, and the instructions of *slots*, one marked."""
    yield f"{sub.name}:{declared(program, sub)}"
    for slot in slots:
        if not isinstance(program.insns[slot], High):
            mark = "-->" if slot == wrong else "   "
            yield f"{mark} {slot:4}: {insn_text(program, slot)}"


def declared(program: Program, sub: Subprogram) -> str:
    """Return what BTF says of *sub*, as a comment; "" where it says nothing."""
    btf = program.btf
    proto = btf.prototype(sub.type_id) if btf is not None and sub.type_id else None
    if btf is None or proto is None:
        return ""
    given = ", ".join(btf.declare(p.type, p.name) for p in proto.params)
    returns = btf.declare(proto.returns, "").rstrip()
    return f"  ; BTF: {returns} {sub.name}({given or 'void'})"


def called(program: Program, index: int) -> set[int]:
    """Return the subprograms that subprogram *index* calls."""
    sub = program.subprograms[index]
    starts = {s.start: n for n, s in enumerate(program.subprograms)}
    found = set()
    for slot in range(sub.start, sub.end):
        insn = program.insns[slot]
        if isinstance(insn, Call) and (target := function_target(insn, slot)) in starts:
            found.add(starts[target])
    return found


def _code(result: Triage) -> list[str]:
    program = result.facts.built.program
    if program is None:
        why = result.facts.built.why
        return ["## What the compiler says", f"```\n{why}\n```"] if why else []
    subs = [i for i, s in enumerate(program.subprograms) if s.name == result.subject.function]
    if result.wrong is not None:
        subs.insert(0, program.subprogram_at(result.wrong))
        subs += sorted(called(program, subs[0]))
    subs = subs or [0]  # the function itself may be part of its caller by now
    lines = []
    for sub in dict.fromkeys(subs):
        here = result.wrong if sub == subs[0] else None
        lines += listing(program, here, sub)
    parts = ["## The code", "```\n" + "\n".join(lines) + "\n```"]
    if result.wrong_why:
        parts.append(f"{result.wrong_why[:1].upper()}{result.wrong_why[1:]}.")
    if result.wrong is not None and result.trace is not None:
        x86 = x86_lines(program).get(result.wrong, [])
        if x86:
            parts.append("Our x86 of it: " + ", ".join(f"`{line}`" for line in x86) + ".")
    return parts


def _trace(result: Triage) -> list[str]:
    trace = result.trace
    program = result.facts.built.program
    if trace is None or program is None:
        return [f"No trace: {result.trace_why}."] if result.trace_why else []
    if trace.parts_at is None:
        words = (
            f"Interpreter and image of the JIT go the same way, {len(trace.interp)} "
            "instructions, and hold the same values."
        )
        return ["## Trace", words]
    start = max(0, trace.parts_at - 4)
    native, lines = x86_lines(program), []
    for index in range(start, min(trace.parts_at + 2, max(len(trace.interp), len(trace.jit)))):
        for name, moments in (("interp", trace.interp), ("jit", trace.jit)):
            if index >= len(moments):
                continue
            moment = moments[index]
            values = [
                f"r{n}={value_text(v)}"
                for n, v in enumerate(moment.values)
                if v is not None and not (name == "jit" and _blank(trace, index, n))
            ]
            held = slots(program, moments[: index + 1])[index]
            values += [f"[{place}]={value_text(v)}" for place, v in held if v is not None]
            text = insn_text(program, moment.slot)
            if name == "jit":
                text = "; ".join(native.get(moment.slot, []))
            lines.append(f"{name:6} {moment.slot:4}: {text:32} {' '.join(values)}")
    return ["## Trace", f"They part {trace.why}.", "```\n" + "\n".join(lines) + "\n```"]


def _blank(trace: Lockstep, index: int, register: int) -> bool:
    """Return whether the interpreter says that the register holds nothing there."""
    return index < len(trace.interp) and trace.interp[index].values[register] is None


def _bisection(result: Triage) -> list[str]:
    found = result.bisection
    if found is None:
        return []
    lines = [f"- {axis}: {told}" for axis, told in found.axes.items()]
    lines.append(f"- compilers: {found.compilers}")
    if found.first_bad:
        lines.append(f"- first bad: {found.first_bad}; last good: {found.last_good or 'none'}")
    lines += [f"- {name}: {told}" for name, told in steps(found)]
    parts = ["## Bisection", "\n".join(lines)]
    if found.step is not None:
        step = found.step
        innocent = " It is innocent: it only lets code generation show." if found.innocent else ""
        parts.append(
            f"First bad pass: **{step.name}** (`-mllvm -opt-bisect-limit={step.number}` shows "
            f"it, {step.number - 1} does not).{innocent} What it changes:"
        )
        parts.append("```diff\n" + narrowing.difference(step) + "\n```")
    if found.selected:
        parts.append(f"`{found.function}` as instruction selection leaves it:")
        parts.append("```\n" + first_lines(found.selected, SELECTED) + "\n```")
    return parts


def steps(found: narrowing.Bisection) -> list[tuple[str, str]]:
    """Return what was found about the compiler's steps, name and sentence."""
    rows = [("hand-over", found.hand_over), ("passes", found.step_why), ("IR", found.ir)]
    if found.machine:
        rows.append(("passes of code generation that change it", ", ".join(found.machine)))
    return [(name, told) for name, told in rows if told]


def first_lines(text: str, most: int) -> str:
    """Return at most *most* lines of *text*."""
    lines = text.splitlines()
    if len(lines) > most:
        lines = [*lines[:most], f"... {len(lines) - most} lines more"]
    return "\n".join(lines)


def _validity(result: Triage) -> list[str]:
    facts = result.facts
    if result.diagnosis.cause in (UNDEFINED, INVALID):
        return []
    if not facts.planned.layouts:
        return []
    words = []
    checks = (
        "a build with `-fsanitize=undefined,nullability`, and builds with "
        "`-ftrivial-auto-var-init=zero` and `=pattern`"
    )
    if facts.undefined_why:
        words.append(f"- undefined behaviour could not be ruled out: {facts.undefined_why}")
    elif facts.undefined:
        count, why = len(facts.undefined), next(iter(facts.undefined.values()))
        words.append(
            f"- {checks}: of the {len(facts.vectors)} inputs, {count} are not defined and do not "
            f"count ({why}); what is said above holds for the others"
        )
    else:
        words.append(f"- {checks} find nothing undefined on the inputs that were looked at")
    if facts.natives:
        words.append(f"- native code ({', '.join([*facts.natives, *facts.gccs])}) was compared")
    if facts.lenient_native is not None:
        says = "another" if facts.lenient_native else "the same"
        words.append(f"- native code without rules on aliasing and overflow gives {says} result")
    return ["## How the source is known to be valid", "\n".join(words)]


def experiments(log: Iterable[Experiment]) -> list[str]:
    """Return the section that has each experiment with its result."""
    lines = ["| experiment | result |", "|---|---|"]
    for experiment in log:
        name, told = (text.replace("|", "\\|") for text in (experiment.name, experiment.result))
        lines.append(f"| {name} | {told} |")
    return ["## Experiments", "\n".join(lines)]


def _versions(result: Triage) -> list[str]:
    lines = [f"- clang {c.version} (`{Path(c.name).name}`)" for c in result.compilers]
    if result.facts.gccs:
        lines.append(f"- gcc {program_version('gcc')}")
    lines.append(f"- LLVM {llvmlite_llvm().version} (llvmlite: native code)")
    lines.append(f"- crosscheck {metadata.version('crosscheck')}")
    return ["## Versions", "\n".join(lines)]
