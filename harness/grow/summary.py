"""What a campaign came to: for the live screen, for people, for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.grow.features import KINDS
from harness.grow.state import State

BAD = ("diverge", "rejected", "compile_error")  # outcomes that end the command with status 1


@dataclass(frozen=True, slots=True)
class Sample:
    """How far a campaign was."""

    seconds: float  # of all its sessions
    programs: int
    vectors: int
    features: int
    buckets: int
    memory: int  # bytes, all processes of ours


@dataclass(frozen=True, slots=True)
class Summary:
    """What a campaign came to, all its sessions together."""

    seed: int
    programs: int
    builds: int
    vectors: int
    outcomes: Mapping[str, int]
    refusals: Mapping[str, int]
    features: int
    kept: int
    buckets: Mapping[str, tuple[int, str, str | None]]  # findings, representative, known as
    lost: int  # batches
    seconds: float  # of this session
    rate: float  # programs a second, this session
    streams: int = 0  # programs of BPF text, among *programs*
    functions: int = 0  # of C, under test
    function_rate: float = 0.0  # functions a second, this session
    vector_rate: float = 0.0  # vectors a second, this session
    kinds: Mapping[str, int] | None = None  # features by kind
    history: Sequence[Sample] = ()
    memory: int = 0  # bytes now, all processes of ours
    pending: int = 0  # programs that may become cases when the campaign goes on
    why_lost: str = ""  # the last batch that was

    @property
    def accepted(self) -> float:
        """Which part of the builds, and of BPF text, the verifier accepted."""
        refused = self.outcomes.get("rejected", 0) + self.outcomes.get("compile_error", 0)
        judged = sum(self.outcomes.values())
        return 1 - refused / judged if judged else 0.0

    @property
    def ok(self) -> bool:
        """Whether every divergence, refusal and failure of a compiler is known."""
        return not any(
            known is None and name.removeprefix("BPF text ").startswith(BAD)
            for name, (_, _, known) in self.buckets.items()
        )


def summarise(state: State, seconds: float, before: tuple[int, int, int], memory: int) -> Summary:
    """Return what the campaign of *state* came to.

    *before*: programs, vectors and functions at the start of the session.
    """
    names = ("programs", "streams", "functions", "builds", "vectors", "lost != ''")
    sums = ", ".join(f"coalesce(sum({name}), 0)" for name in names)
    ((programs, streams, functions, builds, vectors, lost),) = state.table(
        f"SELECT {sums} FROM batch"
    )
    buckets = {
        name: (count, file, known)
        for name, count, file, known in state.table("SELECT name, count, file, known FROM bucket")
    }
    ((pending,),) = state.table("SELECT count(*) FROM pending")
    whys = state.table("SELECT lost FROM batch WHERE lost != '' ORDER BY number DESC LIMIT 1")
    kinds = state.table(
        "SELECT substr(name, 1, instr(name, ' ') - 1) AS kind, count(*) FROM feature "
        "GROUP BY kind ORDER BY kind"
    )
    history = state.table("SELECT * FROM progress ORDER BY seconds")
    return Summary(
        seed=state.seed,
        programs=programs,
        builds=builds,
        vectors=vectors,
        outcomes=dict(state.table("SELECT name, count FROM outcome ORDER BY count DESC")),
        refusals=dict(state.table("SELECT message, count FROM refusal ORDER BY count DESC")),
        features=len(state.features),
        kept=len(state.kept),
        buckets=buckets,
        lost=lost,
        seconds=seconds,
        rate=(programs - before[0]) / seconds if seconds else 0.0,
        streams=streams,
        functions=functions,
        function_rate=(functions - before[2]) / seconds if seconds else 0.0,
        vector_rate=(vectors - before[1]) / seconds if seconds else 0.0,
        kinds=dict(kinds),
        history=tuple(Sample(*row) for row in history),
        memory=memory,
        pending=pending,
        why_lost=whys[0][0] if whys else "",
    )


def summary_json(result: Summary) -> dict[str, Any]:
    """Return *result* as JSON values."""
    return {
        "seed": result.seed,
        "programs": result.programs,
        "streams": result.streams,
        "functions": result.functions,
        "builds": result.builds,
        "vectors": result.vectors,
        "accepted": round(result.accepted, 4),
        "outcomes": dict(result.outcomes),
        "refusals": dict(result.refusals),
        "features": result.features,
        "feature_kinds": dict(result.kinds or {}),
        "kept": result.kept,
        "pending": result.pending,
        "lost": result.lost,
        "buckets": [
            {"bucket": name, "findings": count, "file": file, "known": known}
            for name, (count, file, known) in result.buckets.items()
        ],
        "seconds": round(result.seconds, 3),
        "rate": round(result.rate, 3),
        "function_rate": round(result.function_rate, 3),
        "vector_rate": round(result.vector_rate, 3),
        "memory": result.memory,
        "history": [
            {
                "seconds": round(s.seconds, 1),
                "programs": s.programs,
                "vectors": s.vectors,
                "features": s.features,
                "buckets": s.buckets,
                "memory": s.memory,
            }
            for s in result.history
        ],
    }


def line(now: Summary) -> str:
    """Return one line that says how far the campaign is."""
    return (
        f"{now.programs} programs ({now.rate:.1f}/s), {now.functions} functions of C "
        f"({now.function_rate:.1f}/s), {now.builds} builds, {now.vectors} vectors "
        f"({now.vector_rate:.0f}/s), {now.accepted:.0%} accepted, {now.features} features, "
        f"{now.kept} kept, {len(now.buckets)} buckets"
    )


def text(result: Summary, folder: Path) -> str:
    """Return *result* for people."""
    lines = [line(result), f"seed {result.seed}, {result.seconds:.1f} s"]
    if result.streams:
        lines.append(f"{result.programs - result.streams} of C, {result.streams} of BPF text")
    lines.append(", ".join(f"{count} {name}" for name, count in result.outcomes.items()))
    kinds = result.kinds or {}
    if kinds:
        lines.append("features: " + ", ".join(f"{kinds[k]} {k}" for k in KINDS if k in kinds))
    if result.pending:
        lines.append(f"{result.pending} programs wait to become cases: --resume")
    if result.lost:
        lines.append(f"{result.lost} batches lost: {result.why_lost}")
    if result.refusals:
        lines.append("refusals:")
        lines += [f"  {count:5} {message}" for message, count in result.refusals.items()]
    if result.buckets:
        lines.append(f"buckets ({folder}/):")
        for name, (count, file, known) in sorted(result.buckets.items()):
            mark = f" (known: {known})" if known else ""
            lines.append(f"  {count:5} {name}{mark}")
            if file:
                lines.append(f"        {file}")
    return "\n".join(lines) + "\n"
