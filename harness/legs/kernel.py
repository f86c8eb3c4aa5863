"""The ``kernel`` leg: what a real Linux says to programs, and does with them.

A Linux 7.3 or newer in guests (the default), or the machine's own where somebody asks for
it. Programs are loaded as libbpf loads them and run with BPF_PROG_TEST_RUN, which tells
the low 32 bits of r0 only.
"""

from __future__ import annotations

import atexit
import errno
import os
import re
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.legs import kernel_request as request
from harness.legs.agent import Reply, Script
from harness.legs.agent_build import build_agent, initramfs
from harness.legs.guest import Crew, Died, Job, Launch, guest_launch, host_launch
from harness.legs.kernel_raw import keep_r0, with_btf
from harness.model import (
    Accepted,
    Crashed,
    HarnessError,
    Outcome,
    OutOfFuel,
    Program,
    Rejected,
    Returned,
    Runner,
    Trapped,
    Unknown,
    Vector,
    Verdict,
)
from harness.toolchain import Compiler, Progress, find_compilers
from harness.toolchain.kernel import Kernel, find_kernel, find_qemu, kernel_btf

GUESTS = 2
LOG_LIMIT = 16 << 20  # bytes of a log that are kept
PATIENCE = 60.0  # seconds the verifier has for one program
RUN_PATIENCE = 30.0  # seconds a batch of runs has
GROUP = 8  # programs with the same BTF that one request loads
REQUEST = 4 << 20  # bytes that one request brings, about
VECTORS = 4096  # of one request
MAX_DEATHS = 2  # vectors of one program that may end a guest, then the rest is not tried
HOST_BTF = Path("/sys/kernel/btf/vmlinux")


@dataclass(frozen=True, slots=True)
class KernelImage:
    """What the kernel's JIT emitted for one subprogram."""

    name: str
    address: int  # where it lay in the kernel
    code: bytes


@dataclass(frozen=True, slots=True)
class KernelAnswer:
    """What Linux said to one program, and did with it."""

    verdict: Verdict
    log: str = ""  # of the verifier; of a refusal always, else at log level 1 or 2
    errno: int = 0  # of BPF_PROG_LOAD; 0: loaded
    btf_log: str = ""  # why the BTF was refused, and the program loaded without it
    truncated: bool = False  # the log was longer: it is the beginning
    translated: bytes = b""  # instructions after the fix-ups
    images: tuple[KernelImage, ...] = ()  # by subprogram, main first; empty: not asked for
    outcomes: tuple[Outcome, ...] = ()  # one for each vector
    processed: int = 0  # instructions the verifier processed
    seconds: float = 0.0  # of the request it was part of, its share

    @property
    def accepted(self) -> bool:
        """Whether the kernel took the program."""
        return isinstance(self.verdict, Accepted)


@dataclass(frozen=True, slots=True)
class ModuleFile:
    """A kernel module whose kfuncs programs may call."""

    name: str
    data: bytes  # the .ko, not compressed


class KernelLeg:
    """Linux in guests, or the machine's own kernel; started when first asked."""

    name = "kernel"

    def __init__(
        self,
        *,
        guests: int = GUESTS,
        host: bool = False,
        kvm: bool = False,
        log_limit: int = LOG_LIMIT,
        patience: float = PATIENCE,
        run_patience: float = RUN_PATIENCE,
        modules: Sequence[ModuleFile] = (),
        compilers: Sequence[Compiler] | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Find what it takes; nothing is started yet.

        With *host* it is the machine's own kernel, which takes root. *kvm* is quicker than
        emulation, and hangs on some machines that are virtual themselves. *compilers* may
        compile the agent; None: the clang that is found. Raises HarnessError, one line,
        where something is missing and cannot be fetched.
        """
        self.host = host
        self.log_limit = log_limit
        self.patience = patience
        self.run_patience = run_patience
        self.kernel: Kernel | None = None
        self._modules = tuple(modules)
        if host and modules:
            raise HarnessError("the machine's own kernel gets no module of ours: use the guest")
        if host and os.geteuid() != 0:
            raise HarnessError("the machine's own kernel is for root only: use the guest instead")
        if compilers is None:
            try:
                compilers = find_compilers(progress=progress)
            except HarnessError:
                compilers = ()  # the machine's own may do
        program = build_agent(compilers)
        qemu: tuple[str, ...] = ()
        if not host:
            self.kernel = find_kernel(progress=progress)
            qemu = find_qemu(progress=progress)
        self._scratch = tempfile.TemporaryDirectory(
            prefix="crosscheck-", ignore_cleanup_errors=True
        )
        launch = self._launch(program, qemu, kvm)
        self._crew = Crew(launch, 1 if host else guests, prelude=self._prelude())
        self._types: request.Types | None = None
        self._cpus = os.sysconf("SC_NPROCESSORS_CONF") if host else 1
        atexit.register(self.close)

    def _launch(self, program: bytes, qemu: Sequence[str], kvm: bool) -> Launch:
        path = Path(self._scratch.name, "agent")
        if self.kernel is None:
            path.write_bytes(program)
            path.chmod(0o755)
            return host_launch(path)
        path.write_bytes(initramfs({"init": program}))
        return guest_launch(qemu, self.kernel.image, path, kvm=kvm)

    def __enter__(self) -> KernelLeg:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the guests."""
        self._crew.close()
        self._scratch.cleanup()
        atexit.unregister(self.close)

    @property
    def boots(self) -> list[float]:
        """Seconds from starting each guest to the agent's first word."""
        return [seconds for guest in self._crew.guests for seconds in guest.boots]

    # --- asking -------------------------------------------------------------

    def check(
        self,
        programs: Sequence[Program],
        vectors: Sequence[Sequence[Vector]] = (),
        *,
        log_level: int = 0,
        images: bool = True,
        flags: Sequence[int] = (),
    ) -> list[KernelAnswer]:
        """Return what Linux says to each of *programs*, and does on each one's *vectors*.

        At *log_level* 0 there is a log of what is refused only; 2 is every state, and
        slow. *images* asks for translated instructions and images, too; *flags* are those
        each program is loaded with (BPF_F_*). Raises HarnessError where no guest starts.
        """
        types = self.types() if any(map(_names_kernel, programs)) else request.Types(None)
        asks = [
            _Ask(
                *(program, tuple(vectors[n]) if vectors else (), log_level, images),
                flags=flags[n] if flags else 0,
            )
            for n, program in enumerate(programs)
        ]
        for ask in asks:
            goal = request.target(ask.program, types)
            if isinstance(goal, Unknown):
                ask.answer = replace(ask.answer, verdict=goal)
            else:
                ask.goal = goal
        self._crew.run([self._job(group) for group in self._groups(asks)])
        return [ask.finish() for ask in asks]

    def ask(self, script: Script, *, timeout: float = RUN_PATIENCE) -> Reply:
        """Return the reply to one *script*; raise HarnessError where the guest dies of it."""
        replies: list[Reply | Died] = []

        def done(reply: Reply | Died) -> Iterable[Job]:
            replies.append(reply)
            return ()

        self._crew.run([Job(script, timeout, done)])
        (reply,) = replies
        if isinstance(reply, Died):
            raise HarnessError(reply.why)
        return reply

    def read_file(self, path: str, limit: int = 64 << 20) -> bytes:
        """Return the file *path* beside the kernel, its first *limit* bytes."""
        script = Script()
        step, number = script.read_file(path, limit)
        reply = self.ask(script)
        if reply.results[step.number] < 0:
            why = request.error_name(reply.results[step.number])
            raise HarnessError(f"cannot read {path} beside the kernel: {why}")
        return reply.ranges[number]

    def symbols(self) -> dict[str, int]:
        """Return the kernel's symbols and their addresses (/proc/kallsyms)."""
        found: dict[str, int] = {}
        for line in self.read_file("/proc/kallsyms").decode("ascii", "replace").splitlines():
            address, _, rest = line.partition(" ")
            name = rest[2:].partition("\t")[0]
            found.setdefault(name, int(address, 16))
        return found

    def btf(self) -> bytes:
        """Return the kernel's own BTF."""
        if self.host:
            try:
                return HOST_BTF.read_bytes()
            except OSError as error:
                raise HarnessError(f"cannot read {HOST_BTF}: {error.strerror}") from None
        data = kernel_btf(self.kernel) if self.kernel is not None else None
        return data if data is not None else self.read_file(str(HOST_BTF))

    def types(self) -> request.Types:
        """Return what programs may name of the kernel and of the modules."""
        if self._types is None:
            self._types = request.Types(self.btf(), self._find_modules())
        return self._types

    # --- modules ------------------------------------------------------------

    def _prelude(self) -> Script | None:
        """Return what every guest does first: it loads the modules."""
        if not self._modules:
            return None
        script = Script()
        for module in self._modules:
            script.module(module.data)
        return script

    def _find_modules(self) -> list[request.Module]:
        """Return the modules' functions; the guests, booted alike, number them alike."""
        if not self._modules:
            return []
        script = Script()
        files = [script.read_file(f"/sys/kernel/btf/{m.name}", 8 << 20) for m in self._modules]
        names = [request.ask_btf_name(script, number) for number in range(1, 65)]
        reply = self.ask(script)
        ids = {name(reply): number for number, name in enumerate(names, 1)}
        found, base = [], self.btf()
        for module, (step, number) in zip(self._modules, files, strict=True):
            if reply.results[step.number] >= 0 and module.name in ids:
                functions = request.type_names(reply.ranges[number], base)["func"]
                found.append(request.Module(module.name, ids[module.name], functions))
        return found

    # --- requests -----------------------------------------------------------

    def _groups(self, asks: Sequence[_Ask]) -> list[list[_Ask]]:
        """Return what is asked in one request each: programs of one object, not too many."""
        groups: list[list[_Ask]] = []
        size = 0
        for ask in asks:
            if ask.goal is None:
                continue
            here = len(ask.goal.insns) * 4 + sum(map(len, ask.vectors))
            last = groups[-1] if groups else []
            fits = last and last[0].program.btf is ask.program.btf and size + here < REQUEST
            if not fits or len(last) == GROUP:
                groups.append([ask])
                size = here
            else:
                last.append(ask)
                size += here
        return groups

    def _script(self, asks: Sequence[_Ask]) -> tuple[Script, list[request.Load]]:
        script = Script(patience=self.patience)
        btf = None
        first = asks[0]
        if first.program.btf is not None and not first.without_btf:
            data, strings = request.encode_btf(first.program.btf, (ask.program for ask in asks))
            btf = request.load_btf(script, data, strings)
        loads = []
        for ask in asks:
            assert ask.goal is not None
            loads.append(
                request.Load(
                    script,
                    ask.program,
                    ask.goal,
                    btf,
                    level=ask.log_level,
                    log_limit=self.log_limit,
                    cpus=self._cpus,
                    flags=ask.flags,
                    overflow=ask.overflow,
                )
            )
        return script, loads

    def _job(self, asks: Sequence[_Ask]) -> Job:
        """Return the job that asks for verdicts, images and a first batch of outcomes."""
        script, loads = self._script(asks)
        batches: list[tuple[int, request.Batch] | None] = []
        for ask, load in zip(asks, loads, strict=True):
            if ask.images:
                load.ask_info()
            count = ask.batch() if not ask.alone else 0
            count = min(count, len(ask.vectors))
            wanted = count and request.runnable(ask.program) is None
            batch = request.Batch(script, load, ask.vectors[:count]) if wanted else None
            batches.append((count, batch) if batch is not None else None)

        def done(reply: Reply | Died) -> Iterable[Job]:
            if isinstance(reply, Died):
                return self._again(asks, reply)
            further: list[Job] = []
            for ask, load, batch in zip(asks, loads, batches, strict=True):
                ask.hear(load, reply, len(asks))
                if ask.lost:
                    ask.lost = False
                    further.append(self._job([ask]))
                    continue
                if batch is not None and ask.answer.accepted:
                    ask.outcomes.update(enumerate(batch[1].outcomes(reply)))
                if ask.answer.accepted:
                    further += self._batches(ask)
            return further

        timeout = self.patience + self.run_patience + 2.0 * len(asks)
        return Job(script, timeout, done)

    def _again(self, asks: Sequence[_Ask], died: Died) -> list[Job]:
        """Return what to ask when a guest died of *asks*: each alone, then without vectors."""
        if len(asks) > 1:
            return [self._job([ask]) for ask in asks]
        (ask,) = asks
        if ask.vectors and not ask.alone:
            ask.alone = True
            return [self._job([ask])]
        verdict = Crashed(died.why) if died.oops else Unknown(died.why)
        ask.answer = replace(ask.answer, verdict=verdict)
        return []

    def _batches(self, ask: _Ask) -> list[Job]:
        """Return the jobs of the vectors that *ask* has no outcome of yet."""
        if request.runnable(ask.program) is not None:
            return []
        left = [n for n in range(len(ask.vectors)) if n not in ask.outcomes]
        count = 1 if ask.alone else ask.batch()
        return [
            self._run_job(ask, left[start : start + count]) for start in range(0, len(left), count)
        ]

    def _run_job(self, ask: _Ask, numbers: Sequence[int]) -> Job:
        script, (load,) = self._script([ask])
        batch = request.Batch(script, load, [ask.vectors[n] for n in numbers])

        def done(reply: Reply | Died) -> Iterable[Job]:
            if isinstance(reply, Reply):
                ask.outcomes.update(zip(numbers, batch.outcomes(reply), strict=True))
                return ()
            if len(numbers) > 1:
                return [self._run_job(ask, [n]) for n in numbers]
            ask.deaths += 1
            ask.outcomes[numbers[0]] = OutOfFuel() if reply.hung else Trapped("kernel", reply.why)
            return ()

        return Job(script, self.patience + self.run_patience, done, lambda: ask.deaths < MAX_DEATHS)

    # --- a runner -----------------------------------------------------------

    def prepare(self, program: Program) -> Runner | Unknown:
        """Return a runner of *program*, or why Linux does not take it.

        A program without BTF of functions gets some. A syscall program gets a main that
        keeps the whole of r0 behind the context, unless Linux refuses it with that.
        """
        why = request.runnable(program)
        if why is not None:
            return Unknown(why)
        known = program.btf is not None and all(each.type_id for each in program.subprograms)
        typed = program if known else with_btf(program)
        if program.type == "syscall" and self.check([keep_r0(typed, 0)], images=False)[0].accepted:
            return _WholeRunner(self, typed)
        (answer,) = self.check([typed], images=False)
        match answer.verdict:
            case Unknown():
                return answer.verdict
            case Rejected(message=message):
                return Unknown(f"Linux refuses it: {message}")
        return _KernelRunner(self, typed)


@dataclass(frozen=True, slots=True)
class _KernelRunner:
    """A program that Linux took."""

    leg: KernelLeg
    program: Program

    def run(self, vectors: Sequence[Vector]) -> list[Outcome]:
        """Return one outcome for each of *vectors*, in order."""
        (answer,) = self.leg.check([self.program], [vectors], images=False)
        return list(answer.outcomes)


@dataclass(frozen=True, slots=True)
class _WholeRunner:
    """A program that Linux took with a main that keeps r0."""

    leg: KernelLeg
    program: Program

    def run(self, vectors: Sequence[Vector]) -> list[Outcome]:
        """Return one outcome for each of *vectors*, in order."""
        # r0 goes behind the context, so contexts of one length share a program
        lengths = sorted({-(-len(vector) // 8) * 8 for vector in vectors})
        batches: dict[int, list[Vector]] = {length: [] for length in lengths}
        for vector in vectors:
            length = -(-len(vector) // 8) * 8
            batches[length].append(vector.ljust(length + 8, b"\0"))
        programs = [keep_r0(self.program, length) for length in lengths]
        answers = self.leg.check(programs, list(batches.values()), images=False)
        outcomes = {
            length: iter(answer.outcomes) for length, answer in zip(lengths, answers, strict=True)
        }
        return [_whole(next(outcomes[-(-len(v) // 8) * 8]), len(v)) for v in vectors]


def _whole(outcome: Outcome, length: int) -> Outcome:
    if isinstance(outcome, Returned):
        return Returned(int.from_bytes(outcome.ctx[-8:], "little"), outcome.ctx[:length])
    return outcome


# --- one program's answer in the making -------------------------------------


@dataclass
class _Ask:
    """A program, what is asked about it, and what was heard."""

    program: Program
    vectors: tuple[Vector, ...]
    log_level: int
    images: bool
    flags: int = 0  # BPF_F_* it is loaded with
    goal: request.Target | None = None
    answer: KernelAnswer = field(default_factory=lambda: KernelAnswer(Unknown("not asked")))
    outcomes: dict[int, Outcome] = field(default_factory=dict)  # by number of the vector
    deaths: int = 0  # of guests, by its vectors
    alone: bool = False  # a guest died of it: vectors go one by one, apart from the verdict
    without_btf: bool = False  # the BTF was refused
    overflow: bool = False  # the log does not fit
    lost: bool = False  # to be asked again

    def batch(self) -> int:
        """Return how many vectors one request runs."""
        if not request.repeatable(self.program.maps):
            return 1  # maps that only a new load brings back to where they began
        longest = max(map(len, self.vectors), default=1)
        return max(1, min(VECTORS, REQUEST // max(longest, 1)))

    def hear(self, load: request.Load, reply: Reply, shared: int) -> None:
        """Take what *reply* says of *load*."""
        told = load.verdict(reply)
        seconds = self.answer.seconds + reply.seconds / shared
        if isinstance(told, Unknown):
            self.answer = replace(self.answer, verdict=told, seconds=seconds)
            return
        result, attempt = told
        if load.btf is not None and reply.results[load.btf.step.number] < 0:
            text = reply.ranges[load.btf.log].decode("utf-8", "replace")
            self.answer = replace(self.answer, btf_log=text)
            self.without_btf = True
        log = reply.ranges[attempt.log].decode("utf-8", "replace")
        if result == -errno.ENOSPC and not self.overflow:
            self.overflow = self.lost = True
            return
        message = log
        if load.beginning is not None:
            log = reply.ranges[load.beginning.log].decode("utf-8", "replace")
            message = reply.ranges[load.attempts[-1].log].decode("utf-8", "replace")
            # the first line of what is left of the end may be half a line
            message = message.partition("\n")[2] or message
        kept = self.log_level > 0 or result < 0
        self.answer = replace(
            self.answer,
            verdict=verdict_of(result, message),
            log=log if kept else "",
            errno=max(-result, 0),
            truncated=load.beginning is not None,
            seconds=seconds,
        )
        if result >= 0 and load.info is not None:
            images = load.info.images(reply)
            names = [each.name for each in self.program.subprograms]
            names += [f"hidden{n}" for n in range(len(images) - len(names))]
            self.answer = replace(
                self.answer,
                translated=load.info.translated(reply),
                images=tuple(
                    KernelImage(name, address, code)
                    for name, (address, code) in zip(names, images, strict=False)
                ),
                processed=load.info.processed(reply),
            )

    def finish(self) -> KernelAnswer:
        """Return the answer, with an outcome for every vector."""
        why: Unknown | None = None
        match self.answer.verdict:
            case Unknown():
                why = self.answer.verdict
            case Rejected(message=message):
                why = Unknown(f"Linux refuses it: {message}")
            case Accepted():
                told = request.runnable(self.program)
                why = Unknown(told) if told is not None else None
        rest = why or Unknown(f"not tried: {MAX_DEATHS} vectors before it ended a guest")
        outcomes = tuple(self.outcomes.get(n, rest) for n in range(len(self.vectors)))
        return replace(self.answer, outcomes=outcomes)


def _names_kernel(program: Program) -> bool:
    """Return whether *program* names anything by the kernel's types."""
    return bool(program.kfuncs) or request.attach_type_of(program) in request.ATTACHED


# --- verdicts from logs -----------------------------------------------------

# Lines of a log that are no error: instructions, states, source lines, statistics
_STATE = re.compile(
    r"\d+: |; |from \d+ to |func#\d+ @|mark_precise|propagating|processed \d+ insns|"
    r"verification time |stack depth |R\d+(_\w+)?=|frame\d+: |Live regs before insn|caller:|"
    r"callee:|returning from callee|to caller at|Validating |Func#\d+ |Func '|\(\w\w\) |"
    r"last_idx |regs=|parent |max_states_per_insn|insns_processed|subprog |Global function |\s|$"
)
_CLOSING = re.compile(r"processed \d+ insns \(limit .*")
_NAMED = re.compile(r"\binsn (\d+)")
_INSN = re.compile(r"(\d+): \([0-9a-f]{2}\) ")
_BEHIND_JUMP = re.compile(r" goto pc[+-]\d+ ([A-Za-z].*)")  # some have no line of their own


def verdict_of(result: int, log: str) -> Verdict:
    """Return the verdict that the *result* of BPF_PROG_LOAD and its *log* tell."""
    if result >= 0:
        return Accepted()
    if result == -errno.EAGAIN:
        return Unknown("Linux did not finish verifying it in the time it was given")
    insn, message = first_error(log)
    if result == -errno.EPERM or (result == -errno.ENOMEM and not message):
        return Unknown(f"BPF_PROG_LOAD: {request.error_name(result)}")
    return Rejected(insn, message or f"BPF_PROG_LOAD: {request.error_name(result)}")


def first_error(log: str) -> tuple[int | None, str]:
    """Return the instruction and the first line of the error that a kernel's *log* ends with."""
    insn, message = None, ""
    for line in log.splitlines():
        told = _INSN.match(line)
        if told is not None:
            behind = _BEHIND_JUMP.search(line)
            insn, message = int(told[1]), behind[1] if behind else ""
        elif _STATE.match(line) is None and not message:
            message = _CLOSING.sub("", line)  # some errors have no line end
    named = _NAMED.search(message)
    return (int(named[1]) if named else insn), message
