"""The ``crosscheck`` command: arguments in, text or JSON out, an exit status.

0: all agree or accept; 1: a divergence or a refusal; 2: wrong usage or a missing tool;
130: interrupted. Imports of what a command needs happen in the command, because
``plugin`` starts once for every test of the conformance runner.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from harness import cli_grow, cli_report
from harness.model import LINKAGES, MCPUS, OPTS, HarnessError
from harness.options import import_in_workers, json_option, legs, positive, write_json

if TYPE_CHECKING:
    from harness.btf_lazy import LazyBtf
    from harness.isa.insn import Insn
    from harness.load import Object, Refused
    from harness.model import Program, Verification

AGREE, DIVERGE, USAGE, INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line *argv* and return its exit status."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    if arguments[:1] == ["plugin"]:
        from harness.plugin import plugin

        return plugin(arguments[1:])
    parser = _parser()
    options = parser.parse_args(arguments)
    # unwinds as an interrupt does, so that workers, compilers and guests end with us
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        command: Callable[[argparse.Namespace], int] = options.command
        status = command(options)
        sys.stdout.flush()
    except HarnessError as error:
        print(f"crosscheck: {error}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        print("crosscheck: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # the reader went away, e.g. `crosscheck disasm x.o | head`: that is no fault
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return AGREE
    return status


class _Parser(argparse.ArgumentParser):
    """Errors in one line that names the way out."""

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    from importlib.metadata import version

    parser = _Parser(
        prog="crosscheck",
        description="Cross-check BPF programs with functions of more than five arguments: "
        "clang, verifier and JIT against a native build.",
    )
    parser.add_argument(
        "--version", action="version", version=f"crosscheck {version('crosscheck')}"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_run(commands)
    _add_parity(commands)
    cli_grow.add_grow(commands)
    _add_triage(commands)
    cli_grow.add_corpus(commands)
    cli_report.add_report(commands)
    _add_verify(commands)
    _add_jit(commands)
    _add_exec(commands)
    _add_disasm(commands)
    _add_asm(commands)
    commands.add_parser("plugin", help="speak the bpf_conformance plugin protocol")
    _add_doctor(commands)
    return parser


def _read_input(file: str) -> bytes:
    if file == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise HarnessError(f"cannot read {file}: {error.strerror}") from None


def _write_output(file: str, data: bytes) -> None:
    if file == "-":
        sys.stdout.buffer.write(data)
        return
    try:
        Path(file).write_bytes(data)
    except OSError as error:
        raise HarnessError(f"cannot write {file}: {error.strerror}") from None


def _object_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("object", metavar="OBJ", help="BPF object file, - for standard input")
    parser.add_argument("--prog", metavar="NAME", help="only this program")
    parser.add_argument(
        "--fill-names",
        action="store_true",
        help="name the nameless BTF parameters of -O0 code, which Linux refuses",
    )


def _load(
    options: argparse.Namespace, data: bytes | None = None, kernel_btf: LazyBtf | None = None
) -> tuple[Object, tuple[Program, ...]]:
    """Return the object and the programs asked for; *kernel_btf* is what CO-RE looks things up in.

    Without it programs that need it are unknown.
    """
    from harness.load import load_object

    data = _read_input(options.object) if data is None else data
    loaded = load_object(
        data, path=options.object, fill_names=options.fill_names, kernel_btf=kernel_btf
    )
    programs = loaded.programs
    for refused in loaded.refused:
        print(f"crosscheck: {refused.name}: unknown: {refused.why}", file=sys.stderr)
    if not programs and not loaded.refused:
        raise HarnessError(f"{options.object}: no program (a function in a section of its own)")
    if options.prog is not None:
        programs = tuple(p for p in programs if p.name == options.prog)
        if not programs:
            names = ", ".join(p.name for p in loaded.programs)
            raise HarnessError(f"{options.object}: no program {options.prog} (it has {names})")
    return loaded, programs


def _with_kernel(programs: tuple[Program, ...]) -> tuple[Program, ...]:
    """Return *programs* with what they call in the kernel, as far as a compiler is at hand."""
    from harness.legs import kfuncs
    from harness.toolchain import find_compilers

    if not any(map(kfuncs.wanted, programs)):
        return programs
    try:
        compiler = find_compilers(fetch=False)[0]
    except HarnessError as error:
        functions = sorted({name for program in programs for name in program.kfuncs})
        if functions:  # helpers there are without a compiler too
            print(f"crosscheck: {', '.join(functions)}: {error}", file=sys.stderr)
        return programs
    return kfuncs.attach(programs, compiler)


# --- verify -----------------------------------------------------------------


def _add_verify(commands: Any) -> None:
    parser = commands.add_parser("verify", help="verdict, message and log of each program")
    _object_options(parser)
    parser.add_argument("--log-level", type=int, choices=(0, 1, 2), default=1)
    parser.add_argument(
        "--slots",
        choices=("parameters", "layout"),
        default="parameters",
        help="count stack arguments by BTF parameters, as Linux does, or by their size",
    )
    parser.add_argument("--no-jit", action="store_true", help="as a kernel without a JIT")
    json_option(parser)
    parser.set_defaults(command=_verify)


def _verify(options: argparse.Namespace) -> int:
    from harness import verifier
    from harness.toolchain.kernel import find_kernel_types

    kernel_btf = find_kernel_types()
    loaded, programs = _load(options, kernel_btf=kernel_btf)
    programs = _with_kernel(programs)
    settings = verifier.Options(
        slots_by=options.slots, jit=not options.no_jit, kernel_btf=kernel_btf
    )
    rows = [_refused_row(refused) for refused in loaded.refused]
    status = AGREE
    for program in programs:
        result = verifier.verify(program, log_level=options.log_level, options=settings)
        row = _verify_row(program, result)
        rows.append(row)
        if row["verdict"] == "reject":
            status = DIVERGE
        if options.json is None:
            print(f"{program.section}/{program.name}: {_verdict_line(row)}")
            if result.log:
                print(result.log.rstrip("\n"))
    if options.json is not None:
        write_json({"programs": rows}, options.json)
    return status


def _refused_row(refused: Refused) -> dict[str, Any]:
    return {
        "name": refused.name,
        "section": refused.section,
        "verdict": "unknown",
        "insn": None,
        "message": refused.why,
        "log": "",
        "processed": 0,
        "seconds": 0.0,
    }


def _verify_row(program: Program, result: Verification) -> dict[str, Any]:
    from harness.model import Accepted, Rejected, Unknown

    verdict = "accept"
    insn: int | None = None
    message: str | None = None
    match result.verdict:
        case Accepted():
            pass
        case Rejected():
            verdict, insn, message = "reject", result.verdict.insn, result.verdict.message
        case Unknown():
            verdict, message = "unknown", result.verdict.why
    return {
        "name": program.name,
        "section": program.section,
        "verdict": verdict,
        "insn": insn,
        "message": message,
        "log": result.log,
        "processed": result.processed,
        "seconds": round(result.seconds, 6),
    }


def _verdict_line(row: dict[str, Any]) -> str:
    if row["verdict"] == "accept":
        return f"accept ({row['processed']} insns processed)"
    where = f" at insn {row['insn']}" if row["insn"] is not None else ""
    return f"{row['verdict']}{where}: {row['message']}"


# --- jit --------------------------------------------------------------------


def _add_jit(commands: Any) -> None:
    parser = commands.add_parser("jit", help="x86-64 image of each program")
    _object_options(parser)
    parser.add_argument("--disasm", action="store_true", help="as x86 assembly")
    parser.add_argument(
        "--as-linux",
        action="store_true",
        help="of the instructions that Linux hands to its JIT, once it accepted the program: "
        "without dead code, with helpers built in",
    )
    json_option(parser)
    parser.set_defaults(command=_jit)


def _jit(options: argparse.Namespace) -> int:
    from harness import verifier
    from harness.jit import text, x86_64
    from harness.model import Image, Unknown
    from harness.toolchain.kernel import find_kernel_types

    kernel_btf = find_kernel_types()
    settings = verifier.Options(kernel_btf=kernel_btf)
    programs = _with_kernel(_load(options, kernel_btf=kernel_btf)[1])
    rows: list[dict[str, Any]] = []
    status = AGREE
    for program in programs:
        if options.as_linux:
            fixed = verifier.translate(program, options=settings)[1]
        else:
            fixed = verifier.fixup(program)
        image = fixed if isinstance(fixed, Unknown) else x86_64.compile(fixed)
        if not isinstance(image, Image):
            print(f"crosscheck: {program.name}: {image.why}", file=sys.stderr)
            rows.append({"name": program.name, "subprogs": [], "why": image.why})
            status = DIVERGE
            continue
        rows.append(
            {
                "name": program.name,
                "subprogs": [
                    {
                        "name": sub.name,
                        "image": sub.code.hex(),
                        "addrs": list(sub.addrs),
                        "relocs": [
                            {
                                "offset": r.offset,
                                "size": r.size,
                                "kind": r.kind,
                                "target": r.target,
                                "addend": r.addend,
                            }
                            for r in sub.relocations
                        ],
                    }
                    for sub in image.subprograms
                ],
            }
        )
        if options.json is not None:
            continue
        print(f"{program.section}/{program.name}:")
        for sub in image.subprograms:
            print(f"  {sub.name}: {len(sub.code)} bytes, {len(sub.relocations)} relocations")
            if options.disasm:
                for offset, code, line in text.disassemble(sub):
                    print(f"    {offset:6x}:  {code.hex():<24}  {line}")
            else:
                print(f"    {sub.code.hex()}")
    if options.json is not None:
        write_json({"programs": rows}, options.json)
    return status


# --- exec -------------------------------------------------------------------


def _add_exec(commands: Any) -> None:
    parser = commands.add_parser("exec", help="run one program on one leg")
    _object_options(parser)
    parser.add_argument("--ctx", default="", metavar="HEX", help="the context's bytes")
    parser.add_argument("--leg", default="jit", choices=("interp", "jit"), help="default: jit")
    json_option(parser)
    parser.set_defaults(command=_exec)


def _exec(options: argparse.Namespace) -> int:
    from harness import pipeline
    from harness.model import Returned, outcome_json
    from harness.toolchain.kernel import find_kernel_types

    try:
        ctx = bytes.fromhex(options.ctx)
    except ValueError:
        raise HarnessError("--ctx takes hexadecimal bytes, e.g. 0100000000000000") from None
    _, programs = _load(options, kernel_btf=find_kernel_types())
    if len(programs) > 1:
        names = ", ".join(p.name for p in programs)
        raise HarnessError(f"{options.object} has several programs: --prog one of {names}")
    programs = _with_kernel(programs)
    (outcome,) = pipeline.execute(programs[0], options.leg, [ctx])
    row = outcome_json(outcome)
    if options.json is not None:
        write_json(row, options.json)
    elif isinstance(outcome, Returned):
        print(f"returned {outcome.r0:#x}")
        print(f"ctx {outcome.ctx.hex()}")
    else:
        print(": ".join(filter(None, (row["outcome"], row["detail"]))))
    return AGREE if isinstance(outcome, Returned) else DIVERGE


# --- disasm, asm ------------------------------------------------------------


def _add_disasm(commands: Any) -> None:
    parser = commands.add_parser("disasm", help="BPF text of an object or of raw instructions")
    parser.add_argument(
        "object", metavar="OBJ", help="object file, raw instructions or their hex; - for stdin"
    )
    parser.add_argument("--prog", metavar="NAME", help="only this program")
    parser.add_argument("--form", choices=("llvm", "kernel"), default="llvm")
    parser.add_argument("--dialect", choices=("r11", "r12"), default="r11")
    parser.set_defaults(command=_disasm, fill_names=False)


def _disasm(options: argparse.Namespace) -> int:
    from harness.isa import codec, disasm

    data = _read_input(options.object)
    if data[:4] == b"\x7fELF":
        _, programs = _load(options, data)
        texts: list[tuple[str, tuple[Insn, ...], dict[int, str]]] = []
        for program in programs:
            names = {s.start: s.name for s in program.subprograms}
            texts.append((f"{program.section}/{program.name}", program.insns, names))
    else:
        try:
            code = bytes.fromhex(data.decode("ascii"))
        except ValueError:
            code = data
        try:
            texts = [("", codec.decode(code), {})]
        except ValueError as error:
            raise HarnessError(f"{options.object}: {error}") from None
    for title, insns, names in texts:
        if title:
            print(f"# {title}")
        try:
            text = disasm.listing(insns, form=options.form, names=names, dialect=options.dialect)
        except ValueError as error:
            raise HarnessError(f"{options.object}: {error}") from None
        print(text, end="")
    return AGREE


def _add_asm(commands: Any) -> None:
    parser = commands.add_parser("asm", help="BPF text to instructions")
    parser.add_argument("file", metavar="FILE", help="BPF text, - for standard input")
    parser.add_argument("--dialect", choices=("r11", "r12"), default="r11")
    parser.add_argument(
        "-o", "--output", metavar="OUT", help="raw instructions to OUT (default: hex on stdout)"
    )
    parser.set_defaults(command=_asm)


def _asm(options: argparse.Namespace) -> int:
    from harness.isa import asm, codec

    try:
        text = _read_input(options.file).decode("utf-8")
        code = codec.encode(asm.assemble(text, dialect=options.dialect).insns)
    except ValueError as error:
        raise HarnessError(f"{options.file}: {error}") from None
    if options.output is None:
        for offset in range(0, len(code), 8):
            print(code[offset : offset + 8].hex(" "))
    else:
        _write_output(options.output, code)
    return AGREE


# --- doctor -----------------------------------------------------------------


def _add_doctor(commands: Any) -> None:
    parser = commands.add_parser("doctor", help="which tools and legs this machine has")
    parser.add_argument(
        "--clang", action="append", default=[], metavar="CMD", help="a compiler to look at"
    )
    json_option(parser)
    parser.set_defaults(command=_doctor)


def _doctor(options: argparse.Namespace) -> int:
    from harness import doctor

    report = doctor.examine(options.clang)
    if options.json is not None:
        write_json(report.json(), options.json)
    else:
        doctor.show(report)
    return AGREE if report.ok else USAGE


# --- run --------------------------------------------------------------------


def _add_run(commands: Any) -> None:
    parser = commands.add_parser(
        "run",
        help="the main job: cross-check C files and cases",
        description="Compile C functions to BPF, verify, JIT and run them, and compare with "
        "native builds of the same C. Without paths: c_sources/ and corpus/.",
    )
    add = parser.add_argument
    add("paths", nargs="*", metavar="PATH", help="C files, folders and cases")
    add("--clang", action="append", default=[], metavar="CMD", help="compiler (repeatable)")
    add(
        "-O",
        dest="opts",
        action="append",
        default=[],
        choices=OPTS,
        help="optimisation level (repeatable)",
    )
    add(
        "--mcpu",
        dest="mcpus",
        action="append",
        default=[],
        choices=MCPUS,
        help="BPF instruction set (repeatable)",
    )
    add(
        "--linkage",
        dest="linkages",
        action="append",
        default=[],
        choices=LINKAGES,
        help="linkage of the functions (repeatable)",
    )
    add(
        "--legs",
        type=legs,
        default=("interp", "jit", "native"),
        help="default: interp,jit,native; kernel is a real Linux",
    )
    add(
        "--kernel",
        choices=("guest", "host"),
        default="guest",
        help="which Linux the leg kernel is: one in qemu, or this machine's own (root only)",
    )
    add("--vectors", type=positive, default=256, metavar="N", help="inputs a function (256)")
    add("--seed", type=int, default=0, metavar="S", help="of the random inputs (0)")
    add(
        "--native-opt",
        dest="native_opts",
        action="append",
        type=int,
        default=[],
        choices=(0, 1, 2, 3),
        help="level of the native build (repeatable; 0 and 2)",
    )
    add("--native-clang", metavar="CMD", help="clang that makes the native build's IR")
    add("--known", metavar="FILE", help="known divergences (corpus/known.toml)")
    add("--jobs", type=positive, metavar="N", help="processes (all cores)")
    add("--json", metavar="FILE", help="the result as JSON, - for standard output")
    add("--junit", metavar="FILE", help="the result as JUnit XML")
    parser.set_defaults(command=_run)


def _run(options: argparse.Namespace) -> int:
    import_in_workers()
    from harness import corpus, run, terminal
    from harness.pipeline import Settings
    from harness.toolchain import find_compilers

    sources, cases = run.expand(options.paths)
    known = corpus.read_known(Path(options.known or "corpus/known.toml"))
    compilers = find_compilers(options.clang)
    native = find_compilers([options.native_clang])[0] if options.native_clang else None
    settings = Settings(
        configs=run.configurations(
            [c.name for c in compilers], options.opts, options.mcpus, options.linkages
        ),
        compilers=tuple(compilers),
        legs=options.legs,
        vectors=options.vectors,
        seed=options.seed,
        native_opts=tuple(dict.fromkeys(options.native_opts)) or (0, 2),
        native_compiler=native,
        host=options.kernel == "host",
    )
    with terminal.progress() as advance:
        report = run.run(sources, cases, settings, known=known, jobs=options.jobs, progress=advance)
    if options.json is not None:
        write_json(run.report_json(report, settings), options.json)
    if options.junit is not None:
        _write_output(options.junit, terminal.junit(report).encode())
    if options.json != "-":
        terminal.show(report, settings)
    return AGREE if report.ok else DIVERGE


# --- triage -----------------------------------------------------------------


def _add_triage(commands: Any) -> None:
    parser = commands.add_parser(
        "triage",
        help="from a divergence to a report: who is wrong, how small, since when, which step",
        description="Classify, reduce and narrow down a finding (.json), a case (.toml) or a "
        "function of a C file, and write a report.",
    )
    add = parser.add_argument
    add("file", nargs="?", metavar="FILE", help="finding, case or C file")
    add("--all", metavar="FOLDER", help="every finding in FOLDER")
    add("--function", default="", metavar="NAME", help="of a C file (the first that diverges)")
    add(
        "--clang",
        action="append",
        default=[],
        metavar="CMD",
        help="compiler under test (repeatable: others are compared with the first)",
    )
    add("-O", dest="opt", choices=OPTS, help="optimisation level")
    add("--mcpu", choices=MCPUS, help="BPF instruction set")
    add("--linkage", choices=LINKAGES, help="linkage of the functions")
    add("--vectors", type=positive, default=64, metavar="N", help="inputs (64)")
    add("--seed", type=int, default=0, metavar="S", help="of the random inputs (0)")
    add("--native-clang", metavar="CMD", help="clang that makes the native build's IR")
    add("--no-reduce", action="store_true", help="leave the C as it is")
    add("--no-cvise", action="store_true", help="reduce with our own passes only")
    add("--attempts", type=positive, default=800, metavar="N", help="texts to look at (800)")
    add("--patience", type=positive, default=600, metavar="S", help="cut reduction off (600 s)")
    add("--kernel", action="store_true", help="ask a real Linux, too (in qemu)")
    add("--out", default=".", metavar="DIR", help="where reports go (.)")
    add("--keep", action="store_true", help="write the case and its known.toml entry to corpus/")
    json_option(parser)
    parser.set_defaults(command=_triage)


def _triage(options: argparse.Namespace) -> int:
    from harness import findings
    from harness.toolchain import find_compilers
    from harness.triage.session import describe, triage_file

    if (options.file is None) == (options.all is None):
        raise HarnessError("triage takes a file, or --all and a folder of findings")
    files = [Path(options.file)] if options.file else list(findings.find(Path(options.all)))
    if not files:
        raise HarnessError(f"{options.all}: no finding (.json) there")
    compilers = find_compilers(options.clang) if options.clang else []
    native = find_compilers([options.native_clang])[0] if options.native_clang else None
    build = None
    if options.opt or options.mcpu or options.linkage:
        build = (options.opt or "2", options.mcpu or "v3", options.linkage or "hidden")
    rows: list[dict[str, Any]] = []
    status = AGREE
    for file in files:
        try:
            result, row = triage_file(
                file,
                out=Path(options.out),
                function=options.function,
                compilers=compilers,
                native=native,
                build=build,
                seed=options.seed,
                vectors=options.vectors,
                shrink=not options.no_reduce,
                cvise=not options.no_cvise,
                attempts=options.attempts,
                patience=float(options.patience),
                keep_in=Path("corpus") if options.keep else None,
                linux=options.kernel,
            )
        except HarnessError as error:
            if options.all is None:
                raise
            print(f"crosscheck: {error}", file=sys.stderr)
            rows.append({"file": str(file), "error": str(error)})
            continue
        rows.append(row)
        if row["diverges"]:
            status = DIVERGE
        if options.json != "-":
            print(describe(result, row))
    if options.json is not None:
        write_json({"triaged": rows}, options.json)
    return status


# --- parity -----------------------------------------------------------------


def _add_parity(commands: Any) -> None:
    parser = commands.add_parser(
        "parity",
        help="ours beside a real Linux: verdicts, logs, translated instructions, images, results",
        description="Verify, fix up, compile and run every program here and in a Linux of its "
        "own, and show what differs. Without paths: c_sources/ and corpus/ on the default builds. "
        "With --selftests: the verifier's own programs in a kernel source, by their tags too.",
    )
    add = parser.add_argument
    add("paths", nargs="*", metavar="PATH", help="BPF objects, C files, folders and cases")
    add("--log", action="store_true", help="compare every log state by state (slow)")
    add(
        "--selftests",
        metavar="DIR",
        help="an unpacked kernel source: its BPF selftests; PATH is then a part of files' names",
    )
    add("--clang", action="append", default=[], metavar="CMD", help="compiler (repeatable)")
    add(
        "--kernel",
        choices=("guest", "host", "none"),
        default="guest",
        help="as of run (guest); none, of --selftests: their tags alone tell",
    )
    add("--vectors", type=positive, default=8, metavar="N", help="inputs a function (8)")
    add("--seed", type=int, default=0, metavar="S", help="of the random inputs (0)")
    add("--known", metavar="FILE", help="known differences (corpus/known.toml)")
    add("--jobs", type=positive, metavar="N", help="processes (all cores)")
    json_option(parser)
    parser.set_defaults(command=_parity)


def _parity(options: argparse.Namespace) -> int:
    from harness import corpus, parity, run, terminal
    from harness.pipeline import Settings
    from harness.toolchain import find_compilers

    if options.selftests is not None:
        return _selftests(options)
    if options.kernel == "none":
        raise HarnessError("--kernel none is for --selftests, whose tags tell: name guest or host")
    others, objects = parity.split_paths(options.paths)
    sources, cases = run.expand(others) if others or not objects else ([], [])
    known = corpus.read_known(Path(options.known or "corpus/known.toml"))
    compilers = find_compilers(options.clang)
    settings = Settings(
        configs=run.configurations([c.name for c in compilers]),
        compilers=tuple(compilers),
        vectors=options.vectors,
        seed=options.seed,
        host=options.kernel == "host",
    )
    with terminal.progress() as advance:
        report = parity.parity(
            sources,
            cases,
            objects,
            settings,
            known=known,
            log=options.log,
            jobs=options.jobs,
            progress=advance,
        )
    if options.json is not None:
        write_json(parity.parity_json(report), options.json)
    if options.json != "-":
        print(parity.parity_text(report), end="")
    return AGREE if report.ok else DIVERGE


def _selftests(options: argparse.Namespace) -> int:
    from harness import corpus, terminal
    from harness.selftests import find_tree, selftests, selftests_json, selftests_text
    from harness.toolchain import find_compilers

    tree = find_tree(options.selftests)
    with terminal.progress() as advance:
        result = selftests(
            tree,
            find_compilers(options.clang)[0],
            wanted=options.paths,
            linux=options.kernel != "none",
            host=options.kernel == "host",
            known=corpus.read_known(Path(options.known or "corpus/known.toml")),
            jobs=options.jobs,
            progress=advance,
        )
    if options.json is not None:
        write_json(selftests_json(result), options.json)
    if options.json != "-":
        print(selftests_text(result), end="")
    return AGREE if result.ok else DIVERGE
