"""What a program may return (``check_return_code``, verifier.c of Linux 7.3.4)."""

from __future__ import annotations

from harness.verifier import attach, context
from harness.verifier.env import Env
from harness.verifier.memory import read_reg
from harness.verifier.precision import mark_register
from harness.verifier.state import SCALAR, Frame, Reg, type_name


def check_result(env: Env, frame: Frame, number: int = 0) -> None:
    """Check the result of the program, or of a callback that runs by itself.

    *number*: the register that holds it; what is thrown is in another.
    """
    entry = env.state.frames[0]
    if env.target is not None and not entry.in_async and attach.returns_void(env.target):
        return
    reg = read_reg(env, frame, number)
    env.events.add(("exit", reg.type))
    where = "At program exit"
    allowed: tuple[int, int] | None
    if entry.in_async:
        where, allowed = "At async callback return", entry.callback_range
    else:
        allowed = context.result_range(env)
    if allowed is None:
        return
    if reg.type != SCALAR:
        env.refuse(f"{where} the register R{number} is not a known value ({type_name(reg.type)})")
    mark_register(env, number)
    num = reg.num
    low, high = num.smin, num.smax
    if env.target is not None and env.target.attach_type == "lsm_mac" and not entry.in_async:
        low, high = num.s32_min, num.s32_max
    if not (allowed[0] <= low and high <= allowed[1]):
        text = invalid_scalar(reg, allowed, where, f"R{number}")
        if env.program.attach_type == "lsm_cgroup" and not env.target.proto.returns:
            text += (
                "\nNote, BPF_LSM_CGROUP that attach to void LSM hooks can't modify return value!"
            )
        env.refuse(text)


def invalid_scalar(reg: Reg, allowed: tuple[int, int], where: str, name: str) -> str:
    """``verbose_invalid_scalar``."""
    text = f"{where} the register {name} has"
    known = ""
    if reg.num.smin > -(1 << 63):
        known += f" smin={reg.num.smin}"
    if reg.num.smax < (1 << 63) - 1:
        known += f" smax={reg.num.smax}"
    return (
        f"{text}{known or ' unknown scalar value'} should have been in [{allowed[0]}, {allowed[1]}]"
    )
