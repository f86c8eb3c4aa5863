"""The agent beside this machine's kernel, which takes no root, and agents that misbehave."""

import errno
import io
import struct
import sys
import time
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from harness.legs import agent, agent_build
from harness.legs.agent import Address, Fd, Quad, Reply, Script
from harness.legs.guest import Crew, Died, Job, Launch, guest_launch, host_launch
from harness.model import HarnessError
from harness.toolchain import Compiler


@pytest.fixture(scope="module")
def program(compiler):
    return agent_build.build_agent([compiler])


@pytest.fixture(scope="module")
def crew(program, tmp_path_factory):
    path = tmp_path_factory.mktemp("agent") / "agent"
    path.write_bytes(program)
    path.chmod(0o755)
    crew = Crew(host_launch(path), 1)
    yield crew
    crew.close()


def ask(crew, *scripts, timeout=20.0):
    """The reply to each of *scripts*, by number."""
    replies = {}

    def job(number, script):
        def done(reply):
            replies[number] = reply
            return ()

        return Job(script, timeout, done)

    crew.run([job(number, script) for number, script in enumerate(scripts)])
    return [replies[number] for number in range(len(scripts))]


# --- the program --------------------------------------------------------------


def test_the_agent_is_a_static_program(program):
    elf = ELFFile(io.BytesIO(program))
    assert elf["e_type"] == "ET_EXEC"
    assert elf["e_machine"] == "EM_X86_64"
    (segment,) = elf.iter_segments()
    assert segment["p_vaddr"] <= elf["e_entry"] < segment["p_vaddr"] + segment["p_filesz"]
    assert segment["p_memsz"] >= segment["p_filesz"] == len(program)
    assert len(program) < 1 << 15


def test_a_compiler_that_cannot_is_passed_over(compiler, program):
    useless = Compiler(("false",), "false", "0", False, "option")
    assert agent_build.build_agent([useless, compiler]) == program


def test_without_a_compiler_one_line_says_so(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(HarnessError, match=r"cannot compile the agent .* takes a clang"):
        agent_build.build_agent([])


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"\x7fELF\x02\x01\x01" + bytes(57)])
def test_what_is_no_object_is_not_linked(data):
    with pytest.raises(HarnessError, match="cannot link the agent"):
        agent_build.link(data)


def test_the_archive_is_what_the_kernel_reads():
    archive = agent_build.initramfs({"init": b"12345", "etc": b""})
    found, at = [], 0
    while True:
        assert archive[at : at + 6] == b"070701"
        fields = [int(archive[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = archive[at + 110 : at + 110 + name_size]
        assert name.endswith(b"\0")
        data = at + 110 + name_size
        data += -data % 4
        at = data + size
        at += -at % 4
        if name == b"TRAILER!!!\0":
            break
        found.append((name[:-1], oct(mode), archive[data : data + size]))
    assert found == [(b"init", "0o100755", b"12345"), (b"etc", "0o100755", b"")]
    assert at == len(archive)


def test_qemu_is_told_what_it_needs():
    launch = guest_launch(["qemu"], Path("/k/vmlinux"), Path("/k/initrd"))
    argv = list(launch.argv(7, Path("/tmp/console")))
    assert argv[:3] == ["qemu", "-accel", "tcg"]
    assert argv[argv.index("-kernel") + 1] == "/k/vmlinux"
    assert argv[argv.index("-initrd") + 1] == "/k/initrd"
    assert "socket,id=agent,fd=7" in argv
    assert "-no-reboot" in argv
    assert guest_launch(["qemu"], Path("k"), Path("i"), kvm=True).argv(7, Path("c"))[2] == "kvm"


# --- requests -----------------------------------------------------------------


def test_nothing_asked_nothing_answered(crew):
    (reply,) = ask(crew, Script())
    assert reply.results == ()
    assert reply.ranges == ()


def test_files_are_read_and_written(crew, tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"x" * 1000)
    script = Script()
    written = script.write_file(str(file), b"hello")
    read, whole = script.read_file(str(file), 4096)
    part_step, part = script.read_file(str(file), 3)
    absent, nothing = script.read_file(str(tmp_path / "absent"), 10)
    (reply,) = ask(crew, script)
    assert [reply.results[s.number] for s in (written, read, part_step)] == [0, 0, 0]
    assert reply.ranges[whole] == b"hello" + b"x" * 995
    assert reply.ranges[part] == b"hel"
    assert reply.results[absent.number] == -errno.ENOENT
    assert reply.ranges[nothing] == b""


def test_large_requests_and_replies_pass(crew, tmp_path):
    data = bytes(range(256)) * (1 << 13)
    file = tmp_path / "file"
    file.write_bytes(b"")
    scripts, numbers = [], []
    for _ in range(4):
        script = Script()
        script.write_file(str(file), data)
        numbers.append(script.read_file(str(file), len(data))[1])
        scripts.append(script)
    replies = ask(crew, *scripts)
    assert [r.ranges[n] for r, n in zip(replies, numbers, strict=True)] == [data] * 4


def test_ranges_are_as_long_as_was_asked_for(crew):
    script = Script()
    text = script.place(b"text\0more")
    three = script.place(struct.pack("<I", 3))
    failed = script.slot()
    ranges = [
        script.string(text, 100),
        script.string(text, 2),
        script.counted(text, 100, three, 2, agent.ANY),
        script.counted(text, 4, three, 2, agent.ANY),
        script.fixed(text, 9, agent.ANY),
        script.fixed(text, 9, failed),
    ]
    assert ranges == list(range(6))
    (reply,) = ask(crew, script)
    assert reply.ranges == (b"text", b"te", b"text\0m", b"text", b"text\0more", b"")


def test_a_step_whose_descriptor_is_missing_is_skipped(crew):
    script = Script()
    bad = script.bpf(0xFFFF, [0])
    after = script.bpf(0xFFFF, [Fd(bad.slot)])
    other = script.bpf(0xFFFF, [0], when=(agent.IF_OK, bad.slot))
    instead = script.bpf(0xFFFF, [0], when=(agent.IF_FAILED, bad.slot))
    (reply,) = ask(crew, script)
    assert reply.results[bad.number] in (-errno.EINVAL, -errno.EPERM, -errno.ENOSYS)
    assert reply.results[after.number] == agent.SKIPPED
    assert reply.results[other.number] == agent.SKIPPED
    assert reply.results[instead.number] == reply.results[bad.number]


def test_addresses_are_those_of_the_agent(crew):
    script = Script()
    there, _, patches = script.attribute([7, 0, Address(64), Quad(-1), b"end"])
    script.step(99, patches=patches)
    whole = script.fixed(there, 27, agent.ANY)
    (reply,) = ask(crew, script)
    assert reply.results == (-errno.EINVAL,)
    seven, zero, address, minus, end = struct.unpack("<IIQq3s", reply.ranges[whole])
    assert (seven, zero, minus, end) == (7, 0, -1, b"end")
    assert address % 4096 == 64


def test_what_does_not_fit_is_refused_here():
    with pytest.raises(ValueError, match="a request of more than"):
        Script().place(bytes(agent.ROOMS + 1))
    with pytest.raises(ValueError, match="needs more than"):
        Script().room(agent.MAX_MEMORY)


# --- agents that misbehave ----------------------------------------------------

HELLO = agent.HELLO.pack(agent.MAGIC, agent.VERSION, 0, 0, 0)
TAKE = f"""
import socket, struct, sys, time
channel = socket.socket(fileno=0)
def receive(size):
    data = b""
    while len(data) < size:
        part = channel.recv(size - len(data))
        if not part: sys.exit()
        data += part
    return data
def take():
    header = struct.unpack("<10I", receive(40))
    number, data, steps, patches, ranges = header[1], header[3], *header[4:7]
    return number, receive(40 * steps + 16 * patches + 20 * ranges + data)
def answer(number, body=b"", steps=0, ranges=0):
    size = len(body) - 8 * steps - 4 * ranges
    channel.sendall(struct.pack("<4IQ", {agent.MAGIC}, number, steps, ranges, size) + body)
channel.sendall({HELLO!r})
"""


def crew_of(code, guests=1):
    return Crew(Launch(lambda _fd, _c: [sys.executable, "-c", code], "the agent", False), guests)


def test_the_request_that_ends_an_agent_is_named_and_the_rest_goes_on():
    code = TAKE + (
        "while True:\n"
        "    number, body = take()\n"
        "    if b'die' in body: sys.exit()\n"
        "    answer(number)\n"
    )
    scripts = [Script() for _ in range(12)]
    for number in (3, 7, 8):
        scripts[number].place(b"die")
    crew = crew_of(code)
    replies = ask(crew, *scripts)
    crew.close()
    dead = [n for n, reply in enumerate(replies) if isinstance(reply, Died)]
    assert dead == [3, 7, 8]
    assert replies[3] == Died("the agent died: it ended", False)
    assert len(crew.guests[0].boots) == 4


def test_a_request_that_hangs_is_given_up():
    code = TAKE + (
        "while True:\n"
        "    number, body = take()\n"
        "    if b'hang' in body: time.sleep(1000)\n"
        "    answer(number)\n"
    )
    scripts = [Script() for _ in range(4)]
    scripts[1].place(b"hang")
    crew = crew_of(code, guests=2)
    began = time.perf_counter()
    replies = ask(crew, *scripts, timeout=1.0)
    crew.close()
    assert time.perf_counter() - began < 60
    assert replies[1] == Died("the agent hung: no answer in 1 s", True)
    assert [isinstance(reply, Reply) for reply in replies] == [True, False, True, True]


@pytest.mark.parametrize(
    ("does", "why"),
    [
        ("channel.sendall(b'garbage! ' * 20); time.sleep(100)", "the agent says 67617262616765"),
        ("answer(number + 1); time.sleep(100)", "the agent answers request 2, not 1"),
        ("channel.sendall(b'CCGA'); sys.exit()", "it ended"),
    ],
)
def test_a_reply_that_is_none_ends_the_agent(does, why):
    crew = crew_of(f"{TAKE}number, body = take()\n{does}\n")
    (reply,) = ask(crew, Script())
    crew.close()
    assert isinstance(reply, Died)
    assert reply.why.startswith(f"the agent died: {why}")


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("import sys; sys.exit('no such machine')", "no such machine"),
        ("pass", "it says nothing"),
        (
            "import socket; socket.socket(fileno=0).sendall(b'x' * 24)",
            "its agent says 787878",
        ),
    ],
)
def test_an_agent_that_does_not_start_is_one_line(code, why):
    crew = crew_of(code)
    with pytest.raises(HarnessError, match=f"^the agent does not start: {why}"):
        ask(crew, Script())
    with pytest.raises(HarnessError, match="closed"):
        ask(crew, Script())
    crew.close()


def test_a_program_that_is_not_there_is_one_line(tmp_path):
    crew = Crew(Launch(lambda _fd, _c: [str(tmp_path / "absent")], "the guest", True), 1)
    with pytest.raises(HarnessError, match=r"cannot run|does not start"):
        ask(crew, Script())


def test_further_jobs_come_of_replies_and_unwanted_ones_are_dropped(crew):
    seen = []

    def job(name, further=(), wanted=True):
        def done(reply):
            assert isinstance(reply, Reply)
            seen.append(name)
            return further

        return Job(Script(), 20.0, done, lambda: wanted)

    inner = job("inner")
    crew.run([job("first", (inner, job("never", wanted=False))), job("no", wanted=False)])
    assert seen == ["first", "inner"]


def test_a_fault_in_what_hears_a_reply_is_not_lost():
    def done(_reply):
        raise ZeroDivisionError

    crew = crew_of(TAKE + "while True:\n    answer(take()[0])\n")
    with pytest.raises(ZeroDivisionError):
        crew.run([Job(Script(), 20.0, done)])
    crew.close()


def test_what_each_agent_does_first():
    code = TAKE + (
        "while True:\n"
        "    number, body = take()\n"
        "    if b'die' in body: sys.exit()\n"
        "    answer(number, struct.pack('<q', 42), steps=1)\n"
    )
    prelude = Script()
    prelude.place(b"first")
    launch = Launch(lambda _fd, _c: [sys.executable, "-c", code], "the agent", False)
    crew = Crew(launch, 1, prelude)
    dying = Script()
    dying.place(b"die")
    replies = ask(crew, dying, Script())
    assert isinstance(replies[0], Died)
    assert replies[1].results == (42,)
    assert crew.guests[0].began_with is not None
    assert crew.guests[0].began_with.results == (42,)
    crew.close()
