"""A triage as Markdown, ready for an issue tracker: nothing in it needs us to be read."""

from __future__ import annotations

import re
import shlex

from harness.isa.disasm import format_insn
from harness.isa.insn import High
from harness.model import Outcome, OutOfFuel, Program, Returned, Trapped, Unknown, Vector
from harness.source import driver
from harness.source.layout import Layout
from harness.triage import bisect as narrowing
from harness.triage.facts import (
    AGREES,
    CLANG,
    CRASH,
    INVALID,
    REFUSED,
    UNDEFINED,
    WRONG_CODE,
    Facts,
)
from harness.triage.lockstep import x86_lines
from harness.triage.session import Triage

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
            return f"[BPF] wrong code at -O{config.opt} -mcpu={config.mcpu}{arguments}"
        case cause if cause == CRASH:
            return f"[BPF] clang {version} fails on valid code at -O{config.opt}{arguments}"
        case cause if cause == REFUSED:
            message = result.diagnosis.detail
            return f"[BPF] verifier refuses code of -O{config.opt} -mcpu={config.mcpu}: {message}"
    return f"{result.diagnosis.cause}: {result.diagnosis.detail}"


def markdown(result: Triage) -> str:
    """Return the whole report."""
    parts = [f"# {title(result)}", summary(result)]
    parts += ["## The C", f"```c\n{result.subject.c.rstrip()}\n```"]
    parts += _compile(result)
    parts += _values(result)
    parts += _code(result)
    parts += _trace(result)
    parts += _bisection(result)
    parts += _validity(result)
    parts += _experiments(result)
    parts += _versions(result)
    if result.notes:
        parts += ["## Notes", "\n".join(f"- {note}" for note in result.notes)]
    return "\n\n".join(parts) + "\n"


def summary(result: Triage) -> str:
    """Return one paragraph: who, what, how sure."""
    diagnosis, config = result.diagnosis, result.subject.config
    words = [
        f"**{diagnosis.cause}** ({diagnosis.confidence}): {diagnosis.detail}.",
        f"Function `{result.subject.function}`, clang {result.target.compiler.version}, "
        f"`-O{config.opt} -mcpu={config.mcpu}`, {config.linkage} linkage.",
    ]
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


def standalone(result: Triage) -> str:
    """Return C that needs nothing of ours: the function, its driver and a ``main``."""
    planned = result.facts.planned
    if not planned.layouts:
        return result.subject.c
    place = planned.layouts[0]
    vector = result.diagnosis.vector or planned.vectors[result.subject.function][0]
    text = driver.translation_unit(result.subject.c, (place,), result.subject.config.linkage)
    text = re.sub(r"(?m)^#line .*\n|^#pragma clang diagnostic .*\n", "", text)
    text = re.sub(r"#ifdef __bpf__\n#include <crosscheck/kfuncs.h>[^\n]*\n#endif\n", "", text)
    text = re.sub(r"#if defined\(CROSSCHECK_BPF_H\)[^#]*#endif\n", "", text)
    size = len(vector)
    values = ", ".join(f"0x{byte:02x}" for byte in vector)
    main = f"""\
#ifndef __bpf__
#include <stdio.h>
int main(void)
{{
\tstatic unsigned char ctx[{max(size, 1)}] __attribute__((aligned(16))) = {{ {values or 0} }};

\t{driver.entry(result.subject.function)}(ctx);
\tfor (int i = 0; i < {size}; i++)
\t\tprintf("%02x", ctx[i]);
\tprintf("\\n");
\treturn 0;
}}
#endif
"""
    return text + main


def commands(result: Triage) -> list[str]:
    """Return the commands that show it, with clang alone."""
    built = result.facts.built
    ours = [a for a in built.arguments if "include" not in a and a not in ("-idirafter", "-c")]
    kept, skip = [], False
    for argument in ours:
        if skip:
            skip = False
        elif argument == "-x":
            skip = True
        else:
            kept.append(argument)
    bpf = shlex.join(["clang", *kept, "-c", "repro.c", "-o", "repro.o"])
    found = [bpf, "llvm-objdump -d repro.o"]
    if result.facts.planned.layouts:
        found.append("clang -O0 repro.c -o repro && ./repro   # what the C means")
    return found


def _compile(result: Triage) -> list[str]:
    text = standalone(result)
    return [
        "## To see it",
        "`repro.c` below is the C above with a program that calls it.",
        "```sh\n" + "\n".join(commands(result)) + "\n```",
        "<details><summary>repro.c</summary>\n\n```c\n" + text.rstrip() + "\n```\n</details>",
    ]


def inputs(place: Layout, vector: Vector) -> list[tuple[str, str]]:
    """Return path and value of each scalar of *vector*."""
    whole = int.from_bytes(vector, "little")
    rows = []
    for leaf in place.leaves():
        value = whole >> leaf.bit & (1 << leaf.bits) - 1
        if leaf.type.signed and value >> leaf.bits - 1:
            rows.append((leaf.path, str(value - (1 << leaf.bits))))
        else:
            rows.append((leaf.path, str(value) if value < 10 else f"{value:#x}"))
    return rows


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
    lines = [f"{here.name}:"]
    for slot in range(start, end):
        insn = program.insns[slot]
        if isinstance(insn, High):
            continue
        mark = "-->" if slot == wrong else "   "
        lines.append(f"{mark} {slot:4}: {format_insn(insn, slot=slot)}")
    return lines


def _code(result: Triage) -> list[str]:
    program = result.facts.built.program
    if program is None:
        why = result.facts.built.why
        return ["## What the compiler says", f"```\n{why}\n```"] if why else []
    sub = next(
        (i for i, s in enumerate(program.subprograms) if s.name == result.subject.function), 0
    )
    lines = listing(program, result.wrong, sub)
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
    lines = []
    for index in range(start, min(trace.parts_at + 2, max(len(trace.interp), len(trace.jit)))):
        for name, moments in (("interp", trace.interp), ("jit", trace.jit)):
            if index >= len(moments):
                continue
            moment = moments[index]
            values = " ".join(
                f"r{n}={v:#x}" if isinstance(v, int) else f"r{n}={v}"
                for n, v in enumerate(moment.values)
                if v is not None and not (name == "jit" and _blank(trace, index, n))
            )
            text = format_insn(program.insns[moment.slot], slot=moment.slot)
            lines.append(f"{name:6} {moment.slot:4}: {text:32} {values}")
    return ["## Trace", f"They part {trace.why}.", "```\n" + "\n".join(lines) + "\n```"]


def _blank(trace: object, index: int, register: int) -> bool:
    """Return whether the interpreter says that the register holds nothing there."""
    from harness.triage.lockstep import Lockstep

    assert isinstance(trace, Lockstep)
    return index < len(trace.interp) and trace.interp[index].values[register] is None


def _bisection(result: Triage) -> list[str]:
    found = result.bisection
    if found is None:
        return []
    lines = [f"- {axis}: {told}" for axis, told in found.axes.items()]
    lines.append(f"- compilers: {found.compilers}")
    if found.first_bad:
        lines.append(f"- first bad: {found.first_bad}; last good: {found.last_good or 'none'}")
    if found.hand_over:
        lines.append(f"- hand-over: {found.hand_over}")
    if found.step_why:
        lines.append(f"- passes: {found.step_why}")
    if found.machine:
        lines.append(f"- passes of code generation that change it: {', '.join(found.machine)}")
    parts = ["## Bisection", "\n".join(lines)]
    if found.step is not None:
        step = found.step
        parts.append(
            f"First bad pass: **{step.name}** (`-mllvm -opt-bisect-limit={step.number}` shows "
            f"it, {step.number - 1} does not). What it changes:"
        )
        parts.append("```diff\n" + narrowing.difference(step) + "\n```")
    return parts


def _validity(result: Triage) -> list[str]:
    facts = result.facts
    if result.diagnosis.cause in (UNDEFINED, INVALID):
        return []
    if not facts.planned.layouts:
        return []
    words = []
    if facts.undefined_why:
        words.append(f"- undefined behaviour could not be ruled out: {facts.undefined_why}")
    else:
        words.append(
            "- a build with `-fsanitize=undefined,nullability` traps on none of the inputs that "
            "differ; builds with `-ftrivial-auto-var-init=zero` and `=pattern` agree"
        )
    if facts.natives:
        words.append(f"- native code ({', '.join([*facts.natives, *facts.gccs])}) was compared")
    if facts.lenient_native is not None:
        says = "another" if facts.lenient_native else "the same"
        words.append(f"- native code without rules on aliasing and overflow gives {says} result")
    return ["## How the source is known to be valid", "\n".join(words)]


def _experiments(result: Triage) -> list[str]:
    lines = ["| experiment | result |", "|---|---|"]
    for experiment in result.diagnosis.experiments:
        name, told = (text.replace("|", "\\|") for text in (experiment.name, experiment.result))
        lines.append(f"| {name} | {told} |")
    return ["## Experiments", "\n".join(lines)]


def _versions(result: Triage) -> list[str]:
    lines = [f"- clang {c.version} (`{c.name}`)" for c in result.compilers]
    return ["## Versions", "\n".join(lines)]
