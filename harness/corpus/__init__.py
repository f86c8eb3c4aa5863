"""Case files: kept inputs with their expectations, one TOML file each.

A case holds a program as BPF text (``[program]``) or a C source (``[source]``), and
checks: ``[verify]``, ``[jit.x86_64]``, ``[[run]]``, ``[crosscheck]``. ``note`` says why
it is kept. A table or key that is not known here is an error, so that a misspelt
check does not pass by being ignored. Inputs are written by people, expectations by
``bless``, which leaves comments and everything else as it is.
"""

from harness.corpus.case import (
    CROSSCHECKS,
    KERNELS,
    Case,
    FunctionDecl,
    ProgramText,
    RunCheck,
    SourceText,
    VerifyCheck,
)
from harness.corpus.kernel_types import kernel_types
from harness.corpus.known import FINDINGS, STATUSES, Known, explaining, read_known, told
from harness.corpus.reading import find, read
from harness.corpus.same import duplicates, fingerprint
from harness.corpus.tables import MAX_SIZE
from harness.corpus.text import program
from harness.corpus.writing import bless, write, write_atomically

__all__ = [
    "CROSSCHECKS",
    "FINDINGS",
    "KERNELS",
    "MAX_SIZE",
    "STATUSES",
    "Case",
    "FunctionDecl",
    "Known",
    "ProgramText",
    "RunCheck",
    "SourceText",
    "VerifyCheck",
    "bless",
    "duplicates",
    "explaining",
    "find",
    "fingerprint",
    "kernel_types",
    "program",
    "read",
    "read_known",
    "told",
    "write",
    "write_atomically",
]
