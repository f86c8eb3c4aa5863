"""The kernel's own programs, judged: tags, messages, headers, rows and the report.

The programs here are ours, in the form of the kernel's; a tree of a few small files
stands for an unpacked source.
"""

import json
from concurrent.futures import Future
from dataclasses import replace

import pytest

from harness import cli
from harness.corpus import Known
from harness.isa.insn import Alu, Exit
from harness.legs.kernel import KernelAnswer, KernelImage
from harness.load import load_object
from harness.model import Accepted, HarnessError, Program, Rejected, Subprogram, Unknown
from harness.selftests import (
    answers,
    build,
    find_tree,
    kmod,
    selftests_json,
    selftests_text,
    session,
)
from harness.selftests.judge import File, Question, Setting, judge_file, rows
from harness.selftests.session import Selftests, explain
from harness.selftests.tags import Message, Spec, read_spec, tags, unmatched
from harness.toolchain import find_compilers
from harness.verifier import kfunc_table

# --- tags -------------------------------------------------------------------


def test_tags_say_what_is_expected():
    spec = read_spec(
        ["test_description=x", "test_expect_failure", "test_expect_msg=R1 {{[a-z]+}}",
         "test_expect_not_msg=safe", "test_log_level=2", "test_prog_flags=BPF_F_TEST_STATE_FREQ",
         "test_prog_flags=1", "test_prog_flags=!BPF_F_TEST_STATE_FREQ", "test_arch=X86_64"]
    )  # fmt: skip
    assert spec == Spec(
        "reject",
        (Message("R1 {{[a-z]+}}"), Message("safe", True)),
        log_level=2,
        flags=1,
        architectures=("X86_64",),
    )
    assert spec.judged


@pytest.mark.parametrize(
    ("texts", "judged"),
    [
        (["test_expect_success"], True),
        (["test_expect_success", "test_arch=ARM64"], False),
        (["test_expect_success", "test_arch=ARM64", "test_arch=X86_64"], True),
        (["test_auxiliary"], False),
    ],
)
def test_other_machines_and_helpers_are_no_tests_here(texts, judged):
    spec = read_spec(texts)
    assert spec is not None
    assert spec.judged is judged


def test_a_test_without_rights_is_none_with_them():
    assert read_spec(["test_expect_failure_unpriv", "test_expect_msg_unpriv=no"]) is None
    assert read_spec([]) is None
    both = read_spec(["test_expect_failure_unpriv", "test_expect_success"])
    assert both is not None
    assert both.verdict == "accept"


def test_messages_alone_expect_success():
    spec = read_spec(["test_expect_msg=x", "load_mode=no_jited"])
    assert spec is not None
    assert spec.verdict == "accept"
    assert not spec.jit


LOG = "0: R1=ctx()\n1: (b7) r0 = 7\nfoo42\nbar\n"


@pytest.mark.parametrize(
    ("messages", "missing"),
    [
        ([Message("r0 = 7"), Message("bar")], None),
        ([Message("bar"), Message("r0 = 7")], "r0 = 7"),  # in order
        ([Message("foo{{[0-9]+}}")], None),
        ([Message("foo{{[[:digit:]]{2}$}}")], None),
        ([Message("(b7) r0 = 7{{[^x]*}}bar")], "(b7) r0 = 7{{[^x]*}}bar"),  # in one line
        ([Message("r0"), Message("foo", True), Message("bar")], "foo"),
        ([Message("foo", True), Message("r0"), Message("bar")], None),  # after the span
        ([Message("r0 = 7"), Message("bar", True)], "bar"),
        ([Message("nothing", True)], None),
    ],
)
def test_messages_are_looked_for_as_the_loader_does(messages, missing):
    found = unmatched(LOG, messages)
    assert (found.pattern if found else None) == missing


# --- building and judging ---------------------------------------------------

MISC = """
#define XSTR(s) #s
#define STR(s) XSTR(s)
#define TAG(t) __attribute__((btf_decl_tag("comment:" STR(__COUNTER__) ":" t)))
#define SEC(n) __attribute__((section(n), used))
"""
SOURCE = """
#include "vmlinux.h"
#include "bpf_misc.h"
SEC("syscall") TAG("test_expect_success") TAG("test_expect_msg=w0 = 0") TAG("test_log_level=2")
int good(void *ctx) { return 0; }
SEC("syscall") TAG("test_expect_failure") TAG("test_expect_msg=R2 !read_ok")
__attribute__((naked)) int bad(void) { asm volatile("r0 = r2; exit;" ::: "r0"); }
SEC("syscall") TAG("test_expect_failure") TAG("test_expect_msg=never")
int wrong(void *ctx) { return 1; }
SEC("syscall") TAG("test_auxiliary")
int other(void *ctx) { return 1; }
char _license[] SEC("license") = "GPL";
"""
DOC = """
import sys
print("/* made from", sys.argv[-1], "*/")
"""


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "linux"
    for name, text in {
        f"{build.PROGRAMS}/bpf_misc.h": MISC,
        f"{build.PROGRAMS}/verifier_ours.c": SOURCE,
        f"{build.PROGRAMS}/verifier_broken.c": "this is no C",
        "tools/lib/bpf/bpf_helpers.h": "",
        "tools/include/uapi/linux/bpf.h": "",
        "scripts/bpf_doc.py": DOC,
    }.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return find_tree(str(root))


@pytest.fixture
def setting(tree, tmp_path):
    (compiler,) = find_compilers()
    headers = tmp_path / "headers"
    headers.mkdir()
    (headers / "vmlinux.h").write_text("")
    return Setting(tree, compiler, headers, ())


def test_a_tree_is_found_from_its_selftests_too(tree):
    assert find_tree(str(tree.programs.parent)) == tree
    assert [p.name for p in tree.sources()] == ["verifier_broken.c", "verifier_ours.c"]
    assert [p.name for p in tree.sources(["ours"])] == ["verifier_ours.c"]


def test_what_is_no_tree_is_said(tree, tmp_path):
    with pytest.raises(HarnessError, match="is no folder: name an unpacked source"):
        find_tree(str(tmp_path / "nothing"))
    with pytest.raises(HarnessError, match="has no tools/testing/selftests/bpf/progs"):
        find_tree(str(tmp_path))
    (tree.root / "scripts/bpf_doc.py").unlink()
    with pytest.raises(HarnessError, match=r"has no scripts/bpf_doc.py: .* all of it"):
        find_tree(str(tree.root))


def test_headers_are_made_once(tree, tmp_path, monkeypatch):
    monkeypatch.setenv("CROSSCHECK_CACHE", str(tmp_path / "cache"))
    tool = tmp_path / "bpftool"
    tool.write_text('#!/bin/sh\necho "/* types */"\n')
    tool.chmod(0o755)
    bpftool = build.Bpftool((str(tool),), ())
    folder = build.make_headers(tree, b"BTF", bpftool)
    assert (folder / "vmlinux.h").read_text() == "/* types */\n"
    assert "uapi/linux/bpf.h" in (folder / "bpf_helper_defs.h").read_text()
    tool.write_text("#!/bin/sh\necho no such thing >&2\nexit 1\n")
    assert build.make_headers(tree, b"BTF", bpftool) == folder
    with pytest.raises(HarnessError, match=r"cannot make vmlinux.h: bpftool: no such thing"):
        build.make_headers(tree, b"other BTF", bpftool)


def test_a_file_is_judged_by_its_tags(tree, setting):
    file = judge_file(tree.programs / "verifier_ours.c", setting)
    assert [q.program.name for q in file.questions] == ["good", "bad", "wrong"]
    good, bad, wrong = rows(file, None)
    assert (good.verdict, good.messages, good.line) == ("equal", "equal", "")
    assert (bad.verdict, bad.messages, bad.line) == ("equal", "equal", "unknown")
    assert (wrong.verdict, wrong.unsound) == ("different", True)
    assert wrong.text == "verdict: program: ours accept; Linux reject (by its tags)"


def test_a_file_that_does_not_compile_says_why(tree, setting):
    file = judge_file(tree.programs / "verifier_broken.c", setting)
    assert "error" in file.fault
    assert not file.questions


def test_names_of_parameters_come_from_another_object(tree, setting):
    (tree.programs / "btf__names.c").write_text(
        '#include "bpf_misc.h"\nint f(long first, long second) { return first + second; }\n'
    )
    (tree.programs / "verifier_names.c").write_text(
        """
        #include "bpf_misc.h"
        __attribute__((naked, noinline, used)) static int f(long a, long b)
        { asm volatile("r0 = 0; exit;"); }
        SEC("syscall") TAG("test_expect_success") TAG("test_btf_func_path=btf__names.bpf.o")
        __attribute__((naked)) int main_(void)
        { asm volatile("r1 = 1; r2 = 2; call %[f]; exit;" :: [f]"i"(f)); }
        char _license[] SEC("license") = "GPL";
        """
    )
    file = judge_file(tree.programs / "verifier_names.c", setting)
    (question,) = file.questions
    btf = question.program.btf
    names = [[p.name for p in proto.params] for _, func, proto in btf.functions()
             if func.name == "f"]  # fmt: skip
    assert names == [["first", "second"]]


def test_tags_come_in_the_order_of_the_source(tree, setting):
    text = "".join(f' TAG("test_expect_msg={n}")' for n in range(12))
    path = tree.programs / "verifier_order.c"
    path.write_text(f'#include "bpf_misc.h"\nSEC("syscall"){text} int f(void *c) {{ return 0; }}\n')
    built = build.compile_program(tree, path, setting.compiler, setting.headers, ())
    loaded = load_object(built.output)
    found = tags(loaded.btf, loaded.programs[0].subprograms[0].type_id)
    assert found == [f"test_expect_msg={n}" for n in range(12)]


# --- beside Linux -----------------------------------------------------------

INSNS = (Alu("mov", 64, 0, None, 0), Exit())
PROGRAM = Program("p", "syscall", "syscall", INSNS, (Subprogram("p", 0, 2),))


def question(verdict, spec=None):
    from harness.model import Verification

    return Question(
        PROGRAM,
        spec or Spec("accept"),
        Verification(verdict, "", 2, 0.0),
        None,
        Unknown("not accepted"),
        Unknown("not accepted"),
    )


def row(ours, linux, spec=None):
    file = File("verifier_x.c", b"", (question(ours, spec),), ())
    (found,) = rows(file, [KernelAnswer(linux)])
    return found


def test_linux_counts_more_than_tags():
    found = row(Accepted(), Rejected(1, "no"), Spec("accept"))
    assert found.unsound
    assert found.against_tags
    assert found.text == "verdict: program: ours accept; Linux reject: no"


def test_where_linux_knows_nothing_tags_count():
    found = row(Rejected(1, "no"), Unknown("no such kfunc"), Spec("reject"))
    assert (found.verdict, found.line) == ("equal", "unknown")


def test_first_error_lines_are_compared():
    assert row(Rejected(1, "a"), Rejected(2, "a"), Spec("reject")).line == "equal"
    assert row(Rejected(1, "a"), Rejected(1, "b"), Spec("reject")).line == "different"


def test_ours_unknown_is_counted_with_its_reason():
    found = row(Unknown("a helper"), Accepted())
    assert (found.verdict, found.why) == ("unknown", "a helper")


def test_without_tags_and_linux_nobody_tells():
    found = row(Accepted(), Unknown("?"), Spec(None))
    assert (found.verdict, found.why) == ("unknown", "neither Linux nor tags tell")


KNOWN = Known("x", "parity", "open", "", source="verifier_x.c", message="verdict: *ours accept*")


def test_a_known_difference_does_not_fail():
    found = row(Accepted(), Rejected(1, "no"))
    assert not Selftests((found,), (), "7.3", 0.0, ()).ok
    explained = explain(found, [KNOWN])
    assert explained.known == "x"
    assert Selftests((explained,), (), "7.3", 0.0, ()).ok
    assert not Selftests((), (), "7.3", 0.0, ()).ok


def test_answers_are_kept_by_what_was_asked(tmp_path, monkeypatch):
    monkeypatch.setenv("CROSSCHECK_CACHE", str(tmp_path))
    asked = [question(Accepted(), Spec("accept", flags=flags)) for flags in range(3)]
    file = File("verifier_x.c", b"object", tuple(asked), ())
    told = [
        KernelAnswer(Accepted(), "log", translated=b"\1\2", images=(KernelImage("p", 5, b"\3"),)),
        KernelAnswer(Rejected(3, "no"), "log", errno=22),
        KernelAnswer(Unknown("why")),
    ]
    assert answers.Answers(file, "7.3").found == [None, None, None]
    answers.Answers(file, "7.3").keep(told)
    assert answers.Answers(file, "7.3").found == told
    assert answers.Answers(file, "7.4").found == [None, None, None]
    other = replace(file.questions[1], program=replace(PROGRAM, insns=(*INSNS, Exit())))
    changed = replace(file, questions=(file.questions[0], other, file.questions[2]))
    assert answers.Answers(changed, "7.3").found == [told[0], None, told[2]]
    monkeypatch.setattr(answers, "way_of_asking", lambda: "another")
    assert answers.Answers(file, "7.3").found == [told[0], told[1], None]
    answers.Answers(file, "7.3").path.write_bytes(b"damaged")
    assert answers.Answers(file, "7.3").found == [None, None, None]


class Queue:
    """Answers at once; remembers what it was asked."""

    def __init__(self):
        self.asked = []

    def submit(self, items, *, log_level, images, flags):
        assert images
        self.asked.append((len(items), log_level, tuple(flags)))
        future = Future()
        future.set_result([KernelAnswer(Accepted(), str(log_level)) for _ in items])
        return future


def test_each_program_is_asked_about_at_its_own_level():
    queue = Queue()
    asked = [question(Accepted(), Spec("accept", log_level=n, flags=n + 1)) for n in (2, 0, 2)]
    told = session._ask(queue, asked).result()
    assert [each.log for each in told] == ["2", "0", "2"]
    assert sorted(queue.asked) == [(1, 0, (1,)), (2, 2, (3, 3))]


# --- the report -------------------------------------------------------------


def test_the_report_tells_every_difference():
    found = (
        row(Accepted(), Rejected(1, "no")),
        row(Rejected(1, "a"), Rejected(1, "b"), Spec("reject")),
        row(Unknown("helper bpf_x#1"), Accepted()),
        row(Accepted(), Accepted()),
    )
    result = Selftests(found, (("verifier_y.c", "no such header"),), "7.3", 1.0, (2.0,))
    text = selftests_text(result)
    assert "Linux refuses, we accept: 1\n  verifier_x.c: p: reject: no\n" in text
    assert "verifier_x.c: p: ours a; Linux b" in text
    assert "1 helper bpf_x#1" in text
    assert "verifier_y.c: no such header" in text
    assert "all: 4 programs; equal: verdict 50.0 % (bar 90), line 0.0 % (bar 80)" in text
    summary = selftests_json(result)["summary"]
    assert summary["unsound"] == ["verifier_x.c: p"]
    assert summary["programs"] == 4
    assert json.dumps(summary)


def test_usage_is_told(tmp_path, capsys):
    assert cli.main(["parity", "--selftests", str(tmp_path / "x")]) == 2
    assert "is no folder" in capsys.readouterr().err
    assert cli.main(["parity", "--kernel", "none"]) == 2
    assert "--selftests" in capsys.readouterr().err


def test_the_verb_judges_a_tree(tree, setting, monkeypatch, capsys):
    monkeypatch.setattr(session, "prepare", lambda _tree, _compiler: setting)
    arguments = ["parity", "--selftests", str(tree.root), "--kernel", "none", "--jobs", "1"]
    assert cli.main(arguments) == 1
    out = capsys.readouterr().out
    assert "Linux refuses, we accept: 1\n  verifier_ours.c: wrong: reject: (by its tags)\n" in out
    assert "No programs: 1\n  verifier_broken.c:" in out
    assert cli.main([*arguments, "no_such_file"]) == 2


# --- the module's functions -------------------------------------------------

LISTED = """
__bpf_kfunc void bpf_kfunc_one(void *mem, int mem__sz)
{
}
BTF_KFUNCS_START(ids)
BTF_ID_FLAGS(func, bpf_kfunc_one)
BTF_ID_FLAGS(func, bpf_kfunc_two, KF_ACQUIRE | KF_RET_NULL)
BTF_ID_FLAGS(func, bpf_kfunc_three)
BTF_ID_FLAGS(func, bpf_kfunc_new, KF_NOT_YET_KNOWN)
BTF_KFUNCS_END(ids)
static const struct btf_kfunc_id_set some_set = {
        .owner = THIS_MODULE,
        .set   = &ids,
};
int init(void) { return register_btf_kfunc_id_set(BPF_PROG_TYPE_SYSCALL, &some_set); }
"""
DECLARED = """
void bpf_kfunc_one(void *mem, int len) __ksym; /* a comment; */
long bpf_kfunc_two(void) __ksym;
struct sock *bpf_kfunc_three(struct sock *a, long b) __ksym;
"""


def test_functions_of_the_module_are_read_from_its_source():
    syscall = frozenset({"syscall"})
    assert kmod.registered(LISTED) == {
        "bpf_kfunc_one": kmod.Listed(syscall, 0),
        "bpf_kfunc_two": kmod.Listed(syscall, kfunc_table.ACQUIRE | kfunc_table.RET_NULL),
        "bpf_kfunc_three": kmod.Listed(syscall, 0),
    }
    text = kmod.definitions(DECLARED, LISTED, {"bpf_kfunc_one", "bpf_kfunc_three"})
    assert "bpf_kfunc_one(void *mem, int mem__sz) {" in text
    assert "bpf_kfunc_three(struct sock *a, long b) { return (struct sock *)0; }" in text
    assert "bpf_kfunc_two" not in text


def test_functions_of_the_module_come_with_their_names(tree, setting):
    folder = tree.programs.parent / "test_kmods"
    folder.mkdir()
    assert kmod.prototypes(tree, setting.compiler, setting.headers, ()) is None
    (folder / kmod.HEADER).write_text(DECLARED)
    (folder / kmod.LIST).write_text(LISTED)
    kmod.prototypes.cache_clear()
    found = kmod.prototypes(tree, setting.compiler, setting.headers, ())
    btf, _ = found
    names = {f.name: [p.name for p in proto.params] for _, f, proto in btf.functions()}
    assert names == {
        "bpf_kfunc_one": ["mem", "mem__sz"],
        "bpf_kfunc_two": [],
        "bpf_kfunc_three": ["a", "b"],
    }
    taken = replace(PROGRAM, kfuncs=("bpf_kfunc_two",))
    flags = kfunc_table.ACQUIRE | kfunc_table.RET_NULL
    assert kmod.attach(taken, found).kfunc_flags == (("bpf_kfunc_two", flags),)
    subject = replace(PROGRAM, kfuncs=("bpf_kfunc_one",))
    assert kmod.attach(subject, found).kfunc_btf is btf
    assert kmod.attach(replace(subject, type="xdp"), found).kfunc_btf is None
    assert kmod.attach(PROGRAM, found).kfunc_btf is None
