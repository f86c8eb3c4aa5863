"""What a program may return (``check_return_code``, verifier.c of Linux 7.3.4)."""

from __future__ import annotations

from harness.verifier import context
from harness.verifier.env import Env
from harness.verifier.memory import read_reg
from harness.verifier.precision import mark_register
from harness.verifier.state import SCALAR, Frame, Reg, type_name


def check_result(env: Env, frame: Frame, number: int = 0) -> None:
    """Check the result of the program, or of a callback that runs by itself.

    *number*: the register that holds it; what is thrown is in another.
    """
    reg = read_reg(env, frame, number)
    where = "At program exit"
    allowed: tuple[int, int] | None
    entry = env.state.frames[0]
    if entry.in_async:
        where, allowed = "At async callback return", entry.callback_range
    else:
        allowed = context.result_range(env)
    if allowed is None:
        return
    if reg.type != SCALAR:
        env.refuse(f"{where} the register R{number} is not a known value ({type_name(reg.type)})")
    mark_register(env, number)
    if not (allowed[0] <= reg.num.smin and reg.num.smax <= allowed[1]):
        env.refuse(invalid_scalar(reg, allowed, where, f"R{number}"))


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
