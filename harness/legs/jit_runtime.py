"""What images call of the kernel's that must be code, not a stub: it knows the image's registers.

``arch_bpf_timed_may_goto`` (arch/x86/net) and ``bpf_loop`` (bpf_iter.c) of Linux 7.3.4,
written anew for the emulator, where time stands still.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.interp import EINVAL, LOOP, MAX_LOOPS
from harness.jit.x86_encoder import (
    AE,
    NE,
    R8,
    R10,
    R12,
    R13,
    R14,
    RAX,
    RBP,
    RBX,
    RCX,
    RDI,
    RDX,
    RET,
    RSI,
    A,
    ADD_ri8,
    ADD_rr,
    CMP_ri8,
    CMP_ri32,
    CMP_rr,
    E,
    JCC_i8,
    MOV32_ri32,
    MOV32_rr,
    MOV_mr,
    MOV_ri32,
    MOV_rm,
    MOV_rr,
    POP_r,
    PUSH_r,
    TEST_rr,
    XOR32_rr,
)

E2BIG = 7
TIMED_LOOPS = 0xFFFF  # BPF_MAX_TIMED_LOOPS: rounds until the clock is asked
TURNS = 17  # of so many rounds in one frame; the interpreter is out of fuel before
_CALL_RAX = b"\xff\xd0"  # FF /2
_UD2 = b"\x0f\x0b"  # 0F 0B


def timed_may_goto() -> bytes:
    """Return the code that is called when the count of a frame has come to zero.

    r10 (``BPF_REG_AX``) is the offset from rbp of the count, behind which the frame keeps
    when its loops began; it returns the new count, and keeps r0 to r5. (Linux's keeps r9,
    where the sixth argument lies, by luck and until time is up.) Here no time goes by: what
    lies in the frame counts the calls, and after ``TURNS`` of them the code ends in ``ud2``:
    only the clock would say whether the loop goes on.
    """
    body = MOV_rm(RAX, R10, 8) + ADD_ri8(RAX, 1) + MOV_mr(R10, 8, RAX) + CMP_ri8(RAX, TURNS)
    back = MOV32_ri32(R10, TIMED_LOOPS) + POP_r(RAX) + RET
    return ADD_rr(R10, RBP) + PUSH_r(RAX) + body + JCC_i8(AE, len(back)) + back + _UD2


def loop() -> bytes:
    """Return ``bpf_loop(u32 nr_loops, void *callback_fn, void *callback_ctx, u64 flags)``."""
    kept = (RBX, R12, R13, R14)
    pops = b"".join(map(POP_r, reversed(kept))) + RET
    refuse = MOV_ri32(RAX, -EINVAL) + pops
    too_many = MOV_ri32(RAX, -E2BIG) + pops
    done = MOV_rr(RAX, RBX) + pops
    call = MOV_rr(RDI, RBX) + MOV_rr(RSI, R14)
    call += XOR32_rr(RDX, RDX) + XOR32_rr(RCX, RCX) + XOR32_rr(R8, R8)
    call += MOV_rr(RAX, R13) + _CALL_RAX + ADD_ri8(RBX, 1) + TEST_rr(RAX, RAX)
    jump = len(JCC_i8(E, 0))
    again = CMP_rr(RBX, R12) + JCC_i8(AE, len(call) + jump)
    begin = MOV_rr(R12, RDI) + MOV_rr(R13, RSI) + MOV_rr(R14, RDX) + XOR32_rr(RBX, RBX)
    rounds = begin + again + call + JCC_i8(E, -(len(again) + len(call) + jump)) + done
    count = MOV32_rr(RDI, RDI) + CMP_ri32(RDI, MAX_LOOPS) + JCC_i8(A, len(rounds))
    checked = count + rounds + too_many
    flags = TEST_rr(RCX, RCX) + JCC_i8(NE, len(checked))
    return b"".join(map(PUSH_r, kept)) + flags + checked + refuse


@dataclass(frozen=True, slots=True)
class Runtime:
    """The functions in place."""

    code: bytes
    loop: int  # address
    timed_may_goto: int  # address
    clock: int  # address of the ud2 that it stops at

    def address(self, kind: str, target: str) -> int | None:
        """Return where a relocation of *kind* for *target* leads, None: not here."""
        match kind, target:
            case "helper", number if number == str(LOOP):
                return self.loop
            case "kfunc", "arch_bpf_timed_may_goto":
                return self.timed_may_goto
        return None


def runtime(base: int) -> Runtime:
    """Return the functions for address *base*."""
    goto = timed_may_goto()
    return Runtime(goto + loop(), base + len(goto), base, base + len(goto) - len(_UD2))
