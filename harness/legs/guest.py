"""A Linux beside ours, and the agent in it: requests in order, whatever they do to it.

A guest is qemu with a kernel and an initramfs whose /init is ``agent.c``; the agent's
channel is a virtio console port, which is one end of a pair of sockets here. The same
agent as a child of ours speaks for the machine's own kernel. A guest that hangs or dies
is started again; the request that did it gets ``Died`` for a reply, and the rest goes on.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.legs import agent
from harness.legs.agent import Reply, Script
from harness.model import HarnessError
from harness.toolchain.apt import leash

BOOT_TIMEOUT = 180.0  # seconds; a busy machine takes many times the usual three
WINDOW = 3  # requests that are on their way to one guest at a time
BUFFER = 1 << 18  # bytes of one read
MAX_STARTS = 3  # attempts to start a guest, one after the other

# What the kernel is told. Nothing it would only do for real hardware; helpers where
# System.map has them; any oops ends the guest, which a hang detector does not (a busy
# machine looks like one): that is what the timeout of a request is for.
KERNEL_OPTIONS = (
    "console=ttyS0 quiet panic=-1 oops=panic nowatchdog mitigations=off nokaslr acpi=off "
    "tsc=reliable no_timer_check cryptomgr.notests audit=0 lsm=capability rcupdate.rcu_expedited=1"
)
MACHINE = (
    *("-machine", "pc,vmport=off", "-cpu", "max", "-m", "1024", "-smp", "1"),
    *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
)


# What a kernel says that broke, and one that gave up
OOPS = re.compile(r"BUG|Oops|kernel BUG|Internal error|[a-z ]+ error:")
PANIC = re.compile(r"Kernel panic")


@dataclass(frozen=True, slots=True)
class Died:
    """A guest did not survive a request, or was not heard of again."""

    why: str  # one line
    hung: bool  # it said nothing until its time was up; else it ended by itself
    oops: bool = False  # its kernel said that it broke


@dataclass
class Job:
    """A request, and what to do with the reply."""

    script: Script
    timeout: float  # seconds from when the agent may begin with it
    done: Callable[[Reply | Died], Iterable[Job]]  # returns further jobs
    wanted: Callable[[], bool] = lambda: True  # asked before it is sent; if not, it is dropped


@dataclass(frozen=True, slots=True)
class Launch:
    """How an agent is started: *argv* of the channel's descriptor and a console file."""

    argv: Callable[[int, Path], Sequence[str]]
    what: str  # for people
    guest: bool  # it has a kernel of its own, which may die


def guest_launch(qemu: Sequence[str], kernel: Path, initrd: Path, *, kvm: bool = False) -> Launch:
    """Return how *qemu* starts *kernel* with the initramfs *initrd*."""

    def argv(channel: int, console: Path) -> Sequence[str]:
        return [
            *qemu,
            *("-accel", "kvm" if kvm else "tcg"),
            *MACHINE,
            *("-kernel", str(kernel), "-initrd", str(initrd), "-append", KERNEL_OPTIONS),
            *("-chardev", f"socket,id=agent,fd={channel}"),
            *("-device", "virtio-serial-pci", "-device", "virtserialport,chardev=agent"),
            *("-chardev", f"file,id=console,path={console}", "-serial", "chardev:console"),
        ]

    return Launch(argv, "the guest", True)


def host_launch(program: Path) -> Launch:
    """Return how the agent *program* is started on the machine's own kernel."""
    return Launch(lambda _channel, _console: [str(program), "-"], "the agent", False)


class Guest:
    """One agent process; starts when first asked, and again after it died."""

    def __init__(self, launch: Launch, prelude: Script | None = None) -> None:
        """*prelude* is what its agent does first, whenever it starts."""
        self._launch = launch
        self._prelude = prelude
        self.began_with: Reply | None = None  # what came of the prelude
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._killed = False
        self.boots: list[float] = []  # seconds each start took
        self.number = 0  # of the next request

    def start(self) -> None:
        """Start it and wait until the agent says hello; raise HarnessError where it does not."""
        if self._killed:
            raise HarnessError(f"{self._launch.what} was ended")
        self._scratch = tempfile.TemporaryDirectory(
            prefix="crosscheck-", ignore_cleanup_errors=True
        )
        began = time.perf_counter()
        ours, theirs = socket.socketpair()
        self._channel = ours
        argv = [*leash(), *self._launch.argv(theirs.fileno(), self._console)]
        errors = Path(self._scratch.name, "errors")
        try:
            with theirs, errors.open("wb") as stderr:
                self._process = subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL if self._launch.guest else theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=stderr,
                    pass_fds=[theirs.fileno()],
                    process_group=0,
                )
        except OSError as error:
            self.close()
            raise HarnessError(f"cannot run {argv[0]}: {error.strerror}") from None
        ours.settimeout(BOOT_TIMEOUT)
        try:
            hello = receive(ours, agent.HELLO.size)
        except OSError:
            said = errors.read_text(errors="replace").strip().splitlines()
            why = (said[-1] if said else "") or self.last_words() or "it says nothing"
            self.close()
            raise HarnessError(f"{self._launch.what} does not start: {why}") from None
        magic, version, *_ = agent.HELLO.unpack(hello)
        if magic != agent.MAGIC or version != agent.VERSION:
            self.close()
            raise HarnessError(f"{self._launch.what} does not start: its agent says {hello.hex()}")
        self.boots.append(time.perf_counter() - began)
        if self._prelude is not None:
            try:
                ours.sendall(self._prelude.encode(0))
                header = receive(ours, agent.REPLY.size)
                _, size = agent.reply_size(header)
                self.began_with = agent.decode(header, receive(ours, size))
            except (OSError, ValueError) as error:
                why = self.last_words() or str(error)
                self.close()
                raise HarnessError(f"{self._launch.what} does not start: {why}") from None
        ours.setblocking(False)

    @property
    def _console(self) -> Path:
        assert self._scratch is not None
        return Path(self._scratch.name, "console")

    @property
    def channel(self) -> socket.socket:
        """Our end of its channel; it is started if need be."""
        for attempt in range(MAX_STARTS):
            if self._process is not None:
                break
            try:
                self.start()
            except HarnessError:
                if attempt == MAX_STARTS - 1 or self._killed:
                    raise
        assert self._channel is not None
        return self._channel

    @property
    def running(self) -> bool:
        """Whether it was started, and has not been ended."""
        return self._process is not None

    def last_words(self) -> str:
        """Return what the kernel last said on its console that tells why, "" if nothing."""
        try:
            lines = self._console.read_text(errors="replace").splitlines()
        except OSError:
            return ""
        said = [re.sub(r"^\[ *\d+\.\d+\] *", "", line).strip() for line in lines]
        for pattern in (OOPS, PANIC):
            for line in said:
                if pattern.match(line):
                    return line
        return next((line for line in reversed(said) if line), "")

    def kill(self) -> None:
        """End it for good; another thread may be waiting for it."""
        self._killed = True
        process = self._process
        if process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)

    def close(self) -> None:
        """End it; the next request starts another."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._scratch is not None:
            self._scratch.cleanup()
            self._scratch = None


def receive(channel: socket.socket, size: int) -> bytes:
    """Return the next *size* bytes of *channel*; raise OSError where it ends before."""
    data = bytearray()
    while len(data) < size:
        part = channel.recv(size - len(data))
        if not part:
            raise ConnectionResetError("its channel ended")
        data += part
    return bytes(data)


@dataclass
class _Flight:
    """Requests on their way to one guest, the oldest first."""

    jobs: deque[tuple[int, Job]] = field(default_factory=deque)
    outgoing: deque[memoryview] = field(default_factory=deque)
    incoming: bytearray = field(default_factory=bytearray)
    began: float = 0.0  # when the oldest became the oldest


class Crew:
    """Some guests that share a queue; each has a thread, which its process lives as long as."""

    def __init__(self, launch: Launch, guests: int, prelude: Script | None = None) -> None:
        self.guests = [Guest(launch, prelude) for _ in range(guests)]
        self._launch = launch
        self._queue: deque[Job] = deque()
        self._pending = 0  # jobs that are not done, in the queue or not
        self._changed = threading.Condition()
        self._failure: BaseException | None = None
        self._threads: list[threading.Thread] = []
        self._closed = False
        self._one_at_a_time = threading.Lock()

    def run(self, jobs: Iterable[Job]) -> None:
        """Do *jobs* and those that come of them; raise HarnessError where no guest starts."""
        with self._one_at_a_time, self._changed:
            self._queue.extend(jobs)
            self._pending += len(self._queue)
            self._failure = None
            self._hire()
            self._changed.notify_all()
            try:
                while self._pending and self._failure is None:
                    self._changed.wait()
                if self._failure is not None:
                    raise self._failure
            except BaseException:
                self._dismiss()  # what is on its way is of no use to anyone
                raise

    def _hire(self) -> None:
        if self._closed:
            raise HarnessError("the leg `kernel` is closed")
        for guest in self.guests[len(self._threads) : self._pending]:
            thread = threading.Thread(target=self._serve, args=(guest,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def close(self) -> None:
        """End all guests."""
        with self._changed:
            self._dismiss()
            threads = list(self._threads)
        for thread in threads:
            thread.join(5.0)

    def _dismiss(self) -> None:
        self._closed = True
        self._queue.clear()
        self._pending = 0
        self._changed.notify_all()
        for guest in self.guests:
            guest.kill()

    # --- one guest's thread -------------------------------------------------

    def _take(self, *, wait: bool) -> Job | None:
        with self._changed:
            while True:
                while self._queue:
                    job = self._queue.popleft()
                    if job.wanted():
                        return job
                    self._pending -= 1
                    self._changed.notify_all()
                if not wait or self._closed:
                    return None
                self._changed.wait()

    def _finished(self, job: Job, reply: Reply | Died) -> None:
        further = list(job.done(reply))
        with self._changed:
            self._queue.extendleft(reversed(further))
            self._pending += len(further) - 1
            self._changed.notify_all()

    def _serve(self, guest: Guest) -> None:
        flight = _Flight()
        try:
            while not self._closed:
                self._fill(guest, flight)
                if flight.jobs:
                    self._move(guest, flight)
        except BaseException as error:
            with self._changed:
                self._failure = error
                self._changed.notify_all()
        finally:
            guest.close()

    def _fill(self, guest: Guest, flight: _Flight) -> None:
        while len(flight.jobs) < WINDOW:
            job = self._take(wait=not flight.jobs)
            if job is None:
                return
            if not flight.jobs:
                flight.began = time.perf_counter()
            guest.number = (guest.number + 1) & 0xFFFFFFFF
            flight.jobs.append((guest.number, job))
            flight.outgoing.append(memoryview(job.script.encode(guest.number)))

    def _move(self, guest: Guest, flight: _Flight) -> None:
        """Send and receive once, or find that the guest is gone."""
        fresh = not guest.running
        channel = guest.channel
        if fresh:
            flight.began = time.perf_counter()
        left = flight.began + flight.jobs[0][1].timeout - time.perf_counter()
        readable, writable, _ = select.select(
            [channel], [channel] if flight.outgoing else [], [], max(left, 0.0)
        )
        if not readable and not writable:
            seconds = flight.jobs[0][1].timeout
            self._bury(guest, flight, f"no answer in {seconds:.0f} s", hung=True)
            return
        try:
            if writable:
                sent = channel.send(flight.outgoing[0])
                flight.outgoing[0] = flight.outgoing[0][sent:]
                if not flight.outgoing[0]:
                    flight.outgoing.popleft()
            if readable:
                data = channel.recv(BUFFER)
                if not data:
                    raise ConnectionResetError
                flight.incoming += data
                self._answer(flight)
        except BlockingIOError:
            pass
        except (OSError, ValueError) as error:
            why = str(error) if isinstance(error, ValueError) else guest.last_words()
            self._bury(guest, flight, why or "it ended", hung=False)

    def _answer(self, flight: _Flight) -> None:
        """Hand out the replies that are complete."""
        size = agent.REPLY.size
        while len(flight.incoming) >= size and flight.jobs:
            header = bytes(flight.incoming[:size])
            number, length = agent.reply_size(header)
            if number != flight.jobs[0][0]:
                raise ValueError(f"the agent answers request {number}, not {flight.jobs[0][0]}")
            if len(flight.incoming) < size + length:
                return
            body = bytes(flight.incoming[size : size + length])
            del flight.incoming[: size + length]
            now = time.perf_counter()
            _, job = flight.jobs.popleft()
            seconds, flight.began = now - flight.began, now
            self._finished(job, agent.decode(header, body, seconds))

    def _bury(self, guest: Guest, flight: _Flight, why: str, *, hung: bool) -> None:
        """Blame the oldest request for the end of the guest; the others are for the next one."""
        guest.close()
        _, culprit = flight.jobs.popleft()
        with self._changed:
            self._queue.extendleft(job for _, job in reversed(flight.jobs))
        flight.jobs.clear()
        flight.outgoing.clear()
        flight.incoming.clear()
        what = f"{self._launch.what} {'hung' if hung else 'died'}"
        oops = self._launch.guest and OOPS.match(why) is not None
        self._finished(culprit, Died(f"{what}: {why}", hung, oops))
