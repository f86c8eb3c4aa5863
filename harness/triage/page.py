"""A triage as one HTML page that needs nothing else: no network, no file beside it.

C, BPF, our x86 and the compiler's x86 side by side; lines that belong together light up
together. Below: the arguments' places drawn, the trace, and the report's other parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from html import escape

from harness.isa.insn import High
from harness.isa.stack_args import REG_ARGS, SLOT_SIZE
from harness.model import Program, Subprogram
from harness.source.layout import Layout
from harness.source.signature import size_of
from harness.triage import bisect as narrowing
from harness.triage import passing, report
from harness.triage.facts import AGREES, CLANG, UNDECIDED, Diagnosis
from harness.triage.insn_text import insn_text
from harness.triage.lockstep import Lockstep, Value, slots, value_text, x86_lines
from harness.triage.repro import commands, inputs, standalone
from harness.triage.session import Triage

TRACE = 40  # moments shown before and after the place where the executions part

_STYLE = """
:root{color-scheme:light dark;--line:#8884;--hit:#ffd54a66;--bad:#e5393540;--soft:#8882}
*{box-sizing:border-box}
body{font:15px/1.5 system-ui,sans-serif;margin:0 auto;max-width:1500px;padding:1.2rem}
h1{font-size:1.35rem;line-height:1.3}h2{font-size:1.05rem;margin:1.8rem 0 .5rem}
pre,.code{font:12.5px/1.45 ui-monospace,SFMono-Regular,Menlo,monospace}
pre{background:var(--soft);padding:.7rem;overflow:auto;border-radius:6px}
.sides{display:grid;grid-template-columns:repeat(auto-fit,minmax(300px,1fr));gap:.7rem}
.side{border:1px solid var(--line);border-radius:6px;overflow:auto;max-height:34rem}
.side h3{position:sticky;top:0;margin:0;padding:.35rem .6rem;font-size:.85rem;
background:Canvas;border-bottom:1px solid var(--line)}
.row{white-space:pre;padding:0 .6rem;tab-size:4;cursor:default}
.row i{display:inline-block;width:3.2em;font-style:normal;opacity:.55}
.row.hit{background:var(--hit)}.row.wrong{background:var(--bad);outline:1px solid #e53935}
.row.name{opacity:.7;margin-top:.3rem}
table{border-collapse:collapse;font-size:.9rem}
td,th{border:1px solid var(--line);padding:.2rem .5rem;text-align:left;vertical-align:top}
.wide{overflow-x:auto}tr.parts td{background:var(--bad)}
.verdict{display:inline-block;padding:.15rem .6rem;border-radius:1rem;border:1px solid currentColor}
svg{max-width:100%;height:auto}svg text{font:12px ui-monospace,monospace;fill:CanvasText}
svg rect{fill:none;stroke:var(--line)}svg .slot{fill:#42a5f533}svg .reg{fill:#66bb6a33}
svg path{fill:none;stroke:#888}svg .head{font-weight:700}
"""
_SCRIPT = """
const rows=[...document.querySelectorAll('[data-line]')];let held=null;
function light(n){for(const r of rows)r.classList.toggle('hit',n!==null&&r.dataset.line===n)}
for(const r of rows){r.addEventListener('mouseenter',()=>{if(held===null)light(r.dataset.line)});
r.addEventListener('mouseleave',()=>{if(held===null)light(null)});
r.addEventListener('click',()=>{held=held===r.dataset.line?null:r.dataset.line;light(held)})}
document.body.dataset.ready='yes';
"""


def page(result: Triage) -> str:
    """Return the page."""
    name = escape(report.title(result))
    found = result.diagnosis
    if result.by_design:
        found = replace(found, cause=report.BY_DESIGN)
    parts = [f"<h1>{name}</h1>", verdict(found), sentence(report.summary(result))]
    if result.known and result.diagnosis.cause in CLANG:
        parts += ["<h2>Cause</h2>", *map(sentence, result.known.split("\n\n"))]
    parts += _sides(result)
    parts += _maps(result)
    if result.facts.planned.layouts:
        parts += _values(result, result.facts.planned.layouts[0])
    parts += _trace(result)
    parts += _bisection(result)
    parts += ["<h2>Experiments</h2>", _experiments(result.diagnosis)]
    parts += ["<h2>To see it</h2>", f"<pre>{escape(chr(10).join(commands(result)))}</pre>"]
    parts += [
        "<details><summary>repro.c</summary>",
        f"<pre>{escape(standalone(result))}</pre></details>",
    ]
    versions = ", ".join(f"clang {c.version}" for c in result.compilers)
    parts.append(f"<p>{escape(versions)}</p>")
    parts += [f"<p>Note: {escape(note)}</p>" for note in result.notes]
    return report.as_in_repro(result, document(name, parts))


def document(name: str, parts: Iterable[str]) -> str:
    """Return a whole page of *parts*, HTML each; *name* is escaped already."""
    return "\n".join(
        [
            "<!doctype html>",
            f'<html lang="en"><head><meta charset="utf-8"><title>{name}</title>',
            '<meta name="viewport" content="width=device-width,initial-scale=1">',
            f"<style>{_STYLE}</style></head><body>",
            *parts,
            f"<script>{_SCRIPT}</script></body></html>",
            "",
        ]
    )


def verdict(diagnosis: Diagnosis) -> str:
    """Return who is wrong and how sure, in a frame."""
    color = {AGREES: "#43a047", UNDECIDED: "#fb8c00", report.BY_DESIGN: "#fb8c00"}.get(
        diagnosis.cause, "#e53935"
    )
    words = f"{diagnosis.cause}, {diagnosis.confidence}"
    return f'<p><span class="verdict" style="color:{color}">{escape(words)}</span></p>'


def sentence(text: str) -> str:
    """Return Markdown *text* as a paragraph."""
    return f"<p>{escape(text.replace('**', '').replace('`', ''))}</p>"


# --- side by side -----------------------------------------------------------

Row = tuple[str, str, int | None, str]  # number, text, line of C, class


def _sides(result: Triage) -> list[str]:
    lines = enumerate(result.subject.c.splitlines(), 1)
    program = result.facts.built.program
    at = _source_lines(program).get(result.wrong) if program and result.wrong is not None else None
    rows: list[Row] = [(str(n), text, n, "wrong" if n == at else "") for n, text in lines]
    sides: list[tuple[str, list[Row]]] = [("C", rows)]
    if program is not None:
        sides.append(("BPF", _bpf(program, result.wrong)))
        sides.append(("our x86-64 (JIT)", x86(program, result.wrong)))
    if result.native:
        rows = [(f"{n.offset:x}", n.text, n.line, "") for n in result.native]
        sides.append(("clang's x86-64, -O2", rows))
    return side_by_side(sides, result.wrong_why)


def side_by_side(sides: Sequence[tuple[str, Sequence[Row]]], why: str) -> list[str]:
    """Return columns, head and rows of each; *why* a row is marked."""
    out = ["<h2>Side by side</h2>"]
    if why:
        out.append(sentence(f"Marked: {why}."))
    out.append('<div class="sides">')
    for head, content in sides:
        out.append(f'<div class="side code"><h3>{escape(head)}</h3>')
        out += [_row(*row) for row in content]
        out.append("</div>")
    return [*out, "</div>"]


def _row(number: str, text: str, line: int | None, kind: str) -> str:
    data = f' data-line="{line}"' if line is not None else ""
    label = f"<i>{escape(number)}</i>" if number else ""
    return f'<div class="row {kind}"{data}>{label}{escape(text)}</div>'


def _source_lines(program: Program) -> dict[int, int]:
    """Return slot: line of the C, for slots that come from it and not from a driver."""
    found: dict[int, int] = {}
    infos = sorted(program.lines, key=lambda info: info.insn)
    at = 0
    current: int | None = None
    for slot in range(len(program.insns)):
        if any(sub.start == slot for sub in program.subprograms):
            current = None
        while at < len(infos) and infos[at].insn <= slot:
            ours = infos[at].file.endswith("input.c")
            current = infos[at].line if ours else None
            at += 1
        if current:
            found[slot] = current
    return found


def _bpf(program: Program, wrong: int | None) -> list[Row]:
    lines = _source_lines(program)
    names = {sub.start: sub.name for sub in program.subprograms}
    rows: list[Row] = []
    for slot in range(len(program.insns)):
        if slot in names:
            rows.append(("", f"{names[slot]}:", None, "name"))
        if not isinstance(program.insns[slot], High):
            kind = "wrong" if slot == wrong else ""
            rows.append((str(slot), insn_text(program, slot), lines.get(slot), kind))
    return rows


def x86(program: Program, wrong: int | None) -> list[Row]:
    """Return our x86 of *program*."""
    lines, code = _source_lines(program), x86_lines(program)
    rows: list[Row] = []
    for sub in program.subprograms:
        rows.append(("", f"{sub.name}:", None, "name"))
        rows += [("", text, None, "") for text in code.get(-1 - sub.start, [])]
        for slot in range(sub.start, sub.end):
            kind = "wrong" if slot == wrong else ""
            rows += [
                (str(slot) if n == 0 else "", text, lines.get(slot), kind)
                for n, text in enumerate(code.get(slot, []))
            ]
    return rows


# --- arguments --------------------------------------------------------------

X86_REGISTERS = ("rdi", "rsi", "rdx", "rcx", "r8", "r9")


def places(parameters: Sequence[tuple[str, int]]) -> list[tuple[str, str, str, str, str]]:
    """Return parameter, caller's BPF place, callee's BPF place, our x86 place, native place.

    *parameters*: text and bytes of each. One row a slot: a struct of more than eight bytes has
    two. The native place is System V's for integers, which is what the JIT follows.
    """
    rows = []
    number = 0
    for text, size in parameters:
        count = 2 if size > SLOT_SIZE else 1
        for part in range(count):
            number += 1
            name = text if count == 1 else f"{text} [{part}]"
            slot = number - REG_ARGS
            if slot <= 0:
                caller = callee = f"r{number}"
            else:
                caller, callee = f"r11{-SLOT_SIZE * slot:+d}", f"r11{SLOT_SIZE * slot:+d}"
            if number <= len(X86_REGISTERS):
                ours = X86_REGISTERS[number - 1]
            else:
                ours = f"[rbp+{SLOT_SIZE * (number - len(X86_REGISTERS)) + SLOT_SIZE}]"
            rows.append((name, caller, callee, ours, ours))
    return rows


def _maps(result: Triage) -> list[str]:
    """Draw the function under test, and what the function of the wrong instruction calls."""
    program = result.facts.built.program
    shown = []
    if result.facts.planned.layouts:
        place = result.facts.planned.layouts[0]
        parameters = [
            (p.text, SLOT_SIZE if hasattr(p.type, "target") else size_of(p.type))
            for p in place.signature.parameters
        ]
        shown.append((place.signature.name, places(parameters)))
    if program is not None and result.wrong is not None:
        for index in sorted(report.called(program, program.subprogram_at(result.wrong))):
            sub = program.subprograms[index]
            found = _parameters(program, sub)
            if found and sub.name not in dict(shown):
                shown.append((sub.name, places(found)))
    passed = _passed(result)
    out = ["<h2>Where the arguments are</h2>"] if shown else []
    for name, rows in shown:
        out.append(f"<p>{escape(name)}</p>{argument_map(rows, passed.get(name, ()))}")
    return out


def _parameters(program: Program, sub: Subprogram) -> list[tuple[str, int]]:
    """Return text and bytes of the parameters of *sub*, as BTF has them."""
    btf = program.btf
    proto = btf.prototype(sub.type_id) if btf is not None else None
    if btf is None or proto is None:
        return []
    return [
        (btf.declare(p.type, p.name or f"#{n}"), btf.size_of(p.type) or SLOT_SIZE)
        for n, p in enumerate(proto.params, 1)
    ]


def _passed(result: Triage) -> dict[str, tuple[Value, ...]]:
    """Return what each function was last called with, in the interpreter."""
    program, trace = result.facts.built.program, result.trace
    if program is None or trace is None:
        return {}
    calls = [e for e in passing.events(program, trace.interp) if e.name.startswith("call of ")]
    return {e.name.removeprefix("call of "): e.values for e in calls}


def argument_map(
    rows: Sequence[tuple[str, str, str, str, str]], passed: Sequence[Value] = ()
) -> str:
    """Return a drawing of which argument sits where on which side, as inline SVG.

    *passed*: what the last call passed.
    """
    heads: tuple[str, ...] = ("parameter", "BPF caller", "BPF callee", "our x86-64", "System V")
    widths: tuple[int, ...] = (230, 110, 110, 120, 120)
    height, gap = 26, 36
    if passed:
        heads, widths = (*heads, "passed here"), (*widths, 170)
    starts = [sum(widths[:n]) + gap * n + 4 for n in range(len(widths))]
    total = starts[-1] + widths[-1] + 4
    out = [
        f'<svg viewBox="0 0 {total} {height * (len(rows) + 1) + 12}" width="{total}" '
        'role="img" aria-label="where each argument is">'
    ]
    for start, head in zip(starts, heads, strict=True):
        out.append(f'<text class="head" x="{start + 6}" y="17">{escape(head)}</text>')
    for index, row in enumerate(rows):
        top = height * (index + 1) + 4
        value = passed[index] if index < len(passed) else None
        cells = (*row, value_text(value) if value is not None else "") if passed else row
        for column, text in enumerate(cells):
            memory = text.startswith(("r11", "["))
            kind = "" if column in (0, 5) else "slot" if memory else "reg"
            x, middle = starts[column], top + height / 2 - 2
            out.append(
                f'<rect class="{kind}" x="{x}" y="{top}" width="{widths[column]}" '
                f'height="{height - 5}" rx="4"/>'
            )
            shown = text if len(text) <= 30 else text[:29] + "…"
            out.append(f'<text x="{x + 6}" y="{top + 15}">{escape(shown)}</text>')
            if column:
                out.append(f'<path d="M{x - gap} {middle}H{x}"/>')
    return "".join([*out, "</svg>"])


def _values(result: Triage, place: Layout) -> list[str]:
    rows = report.legs_of(result.facts, result.diagnosis.vector)
    if not rows or result.diagnosis.vector is None:
        return []
    given = ", ".join(f"{p} = {v}" for p, v in inputs(place, result.diagnosis.vector))
    truth = next((o for name, o in rows if name.startswith("native")), None)
    cells = [(name, report.outcome_text(place, o, truth)) for name, o in rows]
    head = ["<h2>Expected and actual</h2>", f"<p>Input: {escape(given)}</p>"]
    return [*head, table(("leg", "result"), cells)]


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return *rows* of text as a table."""
    out = ["<div class=wide><table><tr>", *(f"<th>{escape(h)}</th>" for h in heads), "</tr>"]
    for row in rows:
        out.append("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>")
    return "".join([*out, "</table></div>"])


# --- trace and the rest -----------------------------------------------------


def _trace(result: Triage) -> list[str]:
    trace, program = result.trace, result.facts.built.program
    if trace is None or program is None:
        return []
    words = "They do not part." if trace.parts_at is None else f"They part {trace.why}."
    head = ["<h2>Trace: interpreter and our image in lockstep</h2>", f"<p>{escape(words)}</p>"]
    return [*head, _moments(trace, program, result.wrong)]


def _moments(trace: Lockstep, program: Program, wrong: int | None) -> str:
    parts = trace.parts_at if trace.parts_at is not None else 0
    start = max(0, parts - TRACE)
    end = min(max(len(trace.interp), len(trace.jit)), parts + TRACE)
    native, held = x86_lines(program), slots(program, trace.interp)
    out = [
        "<div class=wide><table class=code><tr><th>step<th>slot<th>instruction<th>"
        "our x86-64<th>leaves (interpreter)<th>leaves (image), where it differs</tr>"
    ]
    for index in range(start, end):
        left = trace.interp[index] if index < len(trace.interp) else None
        right = trace.jit[index] if index < len(trace.jit) else None
        moment = left or right
        if moment is None:
            continue
        changed, other = [], []
        after = trace.interp[index + 1] if index + 1 < len(trace.interp) else None
        beside = trace.jit[index + 1] if index + 1 < len(trace.jit) else None
        for register, value in enumerate(after.values if after else ()):
            if value is not None and left is not None and left.values[register] != value:
                changed.append(f"r{register}={value_text(value)}")
            there = beside.values[register] if beside else value
            if value is not None and there != value:
                other.append(f"r{register}={value_text(there)}")
        if after is not None:
            before = dict(held[index])
            now = held[index + 1]
            changed += [f"[{n}]={value_text(v)}" for n, v in now if before.get(n) != v]
        if after is not None and beside is not None and after.slot != beside.slot:
            other.append(f"goes on at {beside.slot}")
        cells = (
            str(index),
            str(moment.slot),
            insn_text(program, moment.slot),
            "; ".join(native.get(moment.slot, [])),
            " ".join(changed),
            " ".join(other),
        )
        apart = trace.parts_at is not None and index == trace.parts_at - 1
        kind = ' class="parts"' if apart or moment.slot == wrong else ""
        out.append(f"<tr{kind}>" + "".join(f"<td>{escape(c)}</td>" for c in cells) + "</tr>")
    return "".join([*out, "</table></div>"])


def _bisection(result: Triage) -> list[str]:
    found = result.bisection
    if found is None:
        return []
    rows = [*found.axes.items(), ("compilers", found.compilers)]
    rows += report.steps(found)
    out = ["<h2>Bisection</h2>", table(("axis", "result"), rows)]
    if found.step is not None:
        out.append(f"<p>First bad pass: <b>{escape(found.step.name)}</b></p>")
        out.append(f"<pre>{escape(narrowing.difference(found.step))}</pre>")
    if found.selected:
        out.append(f"<p>{escape(found.function)} as instruction selection leaves it:</p>")
        out.append(f"<pre>{escape(report.first_lines(found.selected, report.SELECTED))}</pre>")
    return out


def _experiments(diagnosis: Diagnosis) -> str:
    return table(("experiment", "result"), [(e.name, e.result) for e in diagnosis.experiments])
