"""The page of a campaign: figures, refusals, what was new when, and the buckets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePath

from harness import findings
from harness.corpus import Known
from harness.grow.campaign import digest
from harness.grow.summary import BAD
from harness.model import HarnessError
from harness.report import contexts
from harness.report.markup import (
    bar,
    counted,
    curve,
    document,
    item,
    note,
    number,
    safe,
    table,
    tag,
    tiles,
    verdict,
)
from harness.report.rows import Row

TEXT = 20_000  # characters of a representative that are shown


def page(name: str, data: Row, known: Sequence[Known], folder: Path | None) -> str:
    """Return the page of *data*, as ``grow --json`` writes it.

    *folder*: of the findings, if they are at hand: then the page has the representatives.
    """
    buckets = sorted(data.rows("buckets"), key=lambda b: (bool(b.text("known")), b.text("bucket")))
    bad = [b for b in buckets if not b.text("known") and _kind(b).startswith(BAD)]
    entries = {entry.id: entry for entry in known}
    rest = sum(not b.text("known") for b in buckets) - len(bad)
    if not data.whole("programs"):
        said = "Nothing was checked."
    elif bad:
        said = counted(len(bad), "bucket")
        said += " of divergences, refusals or compile errors not explained."
    else:
        said = "Every divergence and refusal is known."
    if rest:
        said += f" Not explained yet: {counted(rest, 'bucket')} of unknowns."
    parts = [
        verdict(not bad and bool(data.whole("programs")), said),
        _figures(data, len(buckets)),
        bar(data.counts("outcomes")),
        *_buckets(buckets, entries, folder),
        *_refusals(data.counts("refusals")),
        *_history(data.rows("history")),
        *_kinds(data.counts("feature_kinds")),
    ]
    return document(f"crosscheck grow: {name}", parts)


def _kind(bucket: Row) -> str:
    return bucket.text("bucket").removeprefix("BPF text ")


def _figures(data: Row, buckets: int) -> str:
    keys = ("programs", "streams", "functions", "builds", "vectors")
    names = {"streams": "of them BPF text", "functions": "functions of C"}
    figures: list[tuple[str, object, str]] = [
        (names.get(key, key), data.whole(key), "") for key in keys
    ]
    figures += [
        ("accepted", f"{float(data.number('accepted')):.1%}", ""),
        ("features", data.whole("features"), ""),
        ("cases kept", data.whole("kept"), ""),
        ("may become cases", data.whole("pending"), ""),
        ("buckets", buckets, ""),
        ("batches lost", data.whole("lost"), "diverge"),
        ("seconds", float(data.number("seconds")), ""),
        ("programs a second", float(data.number("rate")), ""),
        ("seed", str(data.whole("seed")), ""),
    ]
    return tiles(figures)


def _refusals(counts: dict[str, int]) -> list[str]:
    if not counts:
        return []
    total, most = sum(counts.values()), max(counts.values()) or 1
    rows = []
    for text, count in sorted(counts.items(), key=lambda pair: -pair[1]):
        words = f"<code>{safe(text)}</code>"
        words = f'<div class="part" style="--w:{100 * count / most:.1f}%">{words}</div>'
        rows.append((number(count), f"{count / total:.1%}" if total else "", words))
    head = f"<h2>Refusals by message ({number(total)})</h2>"
    return [head, "<p class=dim>N is any number.</p>", table(("count", "part", "message"), rows)]


def _history(rows: Sequence[Row]) -> list[str]:
    points = sorted((float(r.number("seconds")), float(r.number("features"))) for r in rows)
    if len(points) < 2:
        return []
    out = ["<h2>Features over time</h2>", curve(points, "seconds", "features seen")]
    cells = [
        tuple(number(r.whole(key)) for key in ("programs", "vectors", "features", "buckets"))
        for r in rows
    ]
    times = [f"{float(r.number('seconds')):.0f}" for r in rows]
    memory = [f"{r.number('memory') / 2**20:.0f}" for r in rows]
    heads = ("seconds", "programs", "vectors", "features", "buckets", "MiB")
    body = table(heads, [(t, *c, m) for t, c, m in zip(times, cells, memory, strict=True)])
    return [*out, item(f"{len(rows)} samples", [body])]


def _kinds(counts: dict[str, int]) -> list[str]:
    if not counts:
        return []
    rows = [(safe(kind), number(count)) for kind, count in counts.items()]
    return ["<h2>Features by kind</h2>", table(("kind", "features"), rows)]


# --- buckets ----------------------------------------------------------------


def _buckets(buckets: Sequence[Row], entries: dict[str, Known], folder: Path | None) -> list[str]:
    if not buckets:
        return []
    out = ["<h2>Buckets</h2>"]
    for bucket in buckets:
        name, known, file = bucket.text("bucket"), bucket.text("known"), bucket.text("file")
        kind, _, words = _kind(bucket).partition(": ")
        head = f"{tag('known') if known else tag(kind)} <b>{number(bucket.whole('findings'))}</b> "
        head += f"{tag('BPF text') + ' ' if name != _kind(bucket) else ''}{safe(words or name)}"
        body = []
        if known:
            head += f" <small>known: {safe(known)}</small>"
            body.append(note(entries.get(known)))
        body += _representative(name, file, folder)
        out.append(item(head, body, "known" if known else kind))
    return out


def _representative(bucket: str, file: str, folder: Path | None) -> list[str]:
    """Return the bucket's smallest member: the one that was shrunk, or the first that was found."""
    out = [f"<p>First found: <code>{safe(file)}</code></p>"] if file else []
    if folder is None:
        return out
    small = f"bucket-{digest(bucket)}"
    # a name of the state's is a name in the folder, and nothing else
    named = [f"{small}.json", f"{small}.toml", PurePath(file).name]
    path = next((folder / n for n in named if n and (folder / n).is_file()), None)
    if path is None:
        return out
    out.append(f"<p>Shown: <code>{safe(path.name)}</code></p>")
    if path.suffix != ".json":
        return [*out, _text(path)]
    try:
        finding = findings.read(path)
        row = Row(findings.to_json(finding), str(path))
        parts = [contexts.divergence(d) for d in row.rows("divergences")]
    except (HarnessError, ValueError) as error:
        return [*out, f"<p>{safe(error)}</p>"]
    out.append(
        f"<p>{tag(finding.outcome)} <b>{safe(finding.function)}</b> {safe(finding.config)}, "
        f"clang {safe(finding.version)}</p><p><code>{safe(finding.detail)}</code></p>"
    )
    return [*out, _clipped(finding.c), *parts]


def _text(path: Path) -> str:
    try:
        return _clipped(path.read_text(encoding="utf-8", errors="replace"))
    except OSError as error:
        return f"<p>{safe(error.strerror)}</p>"


def _clipped(text: str) -> str:
    more = f"\n... and {len(text) - TEXT} characters more" if len(text) > TEXT else ""
    return f"<pre>{safe(text[:TEXT])}{more}</pre>"
