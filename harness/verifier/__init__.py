"""The Linux verifier's decisions, in Python."""

from harness.verifier.check import verify
from harness.verifier.env import Options
from harness.verifier.fixup import fixup
from harness.verifier.translate import translate

__all__ = ["Options", "fixup", "translate", "verify"]
