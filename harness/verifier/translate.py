"""From an accepted program to what Linux hands to its JIT, with what the verifier learnt.

``translate`` is for those who want both; ``rewrites`` does the work.
"""

from __future__ import annotations

from harness.model import Accepted, Program, Unknown, Verification
from harness.verifier.check import explore
from harness.verifier.env import NotModelled, Options
from harness.verifier.rewrite import OutOfReachError
from harness.verifier.rewrites import rewritten


def translate(
    program: Program,
    *,
    log_level: int = 0,
    options: Options | None = None,
) -> tuple[Verification, Program | Unknown]:
    """Return the verification of *program* and, of an accepted one, what the JIT gets.

    The kernel's BTF, in *options*, tells where it keeps what inlined code reads. Unknown
    says which rewrite is not modelled.
    """
    env, verification = explore(program, log_level=log_level, options=options)
    if not isinstance(verification.verdict, Accepted):
        return verification, Unknown("not accepted")
    try:
        return verification, rewritten(env)
    except (NotModelled, OutOfReachError) as reason:
        return verification, Unknown(str(reason))
