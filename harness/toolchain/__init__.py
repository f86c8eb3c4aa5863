"""Find or fetch clang and its kin, and run them."""

from harness.toolchain.clang import find_compilers
from harness.toolchain.compiler import Compiler
from harness.toolchain.progress import Display, Progress, silent
from harness.toolchain.run import (
    TIMEOUT,
    CompileResult,
    ToolError,
    remembering,
    run_compiler,
    syntax_tree,
)
from harness.toolchain.tools import Tool, find_tool, tools_report

__all__ = [
    "TIMEOUT",
    "CompileResult",
    "Compiler",
    "Display",
    "Progress",
    "Tool",
    "ToolError",
    "find_compilers",
    "find_tool",
    "remembering",
    "run_compiler",
    "silent",
    "syntax_tree",
    "tools_report",
]
