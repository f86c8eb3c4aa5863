"""Two outcomes of one vector beside each other, byte for byte."""

from __future__ import annotations

from harness.report.markup import safe, tag
from harness.report.rows import Row

LINE, GROUP = 16, 8  # bytes of a line, and between gaps: a slot is eight
MOST = 4096  # bytes of a context that are shown
SIGN = 1 << 63


def divergence(row: Row) -> str:
    """Return one divergence: the legs, the vector, the two outcomes with what differs marked."""
    outcomes = [Row(o.value, o.where) for o in row.rows("outcomes")]
    legs = row.texts("legs")
    if len(legs) != 2 or len(outcomes) != 2:
        raise ValueError(f"{row.where}: a divergence has two legs and two outcomes")
    vector = row.octets("vector")
    offset = row.whole("offset") if row.has("offset") else None
    out = [f"<h3>{safe(legs[0])} against {safe(legs[1])}</h3>", f"<p>{_what(outcomes, offset)}</p>"]
    if vector:
        out.append(f"<p class=dim>vector, {len(vector)} bytes</p><pre>{dump(vector)}</pre>")
    out.append('<div class="pair">')
    for leg, one, other in zip(legs, outcomes, outcomes[::-1], strict=True):
        out.append(f"<div><p><b>{safe(leg)}</b> {_outcome(one, other)}</p>")
        if one.has("ctx"):
            context, beside = one.octets("ctx"), other.octets("ctx")
            compared = beside if other.has("ctx") else None
            out.append(f"<pre>{dump(context, compared, offset)}</pre>")
        out.append("</div>")
    return "".join([*out, "</div>"])


def _what(outcomes: list[Row], offset: int | None) -> str:
    one, two = outcomes
    if one.text("outcome") != two.text("outcome"):
        return "They end differently."
    if offset is not None:
        return f"The contexts differ first at byte {offset} (0x{offset:x})."
    if one.has("r0") and one.whole("r0") != two.whole("r0"):
        return "r0 differs."
    if one.text("detail") != two.text("detail"):
        return "They say different things."
    return "r0 and the context are the same; what they did besides differs."


def _outcome(one: Row, other: Row) -> str:
    words = tag(one.text("outcome"))
    if one.has("r0"):
        r0 = one.whole("r0")
        shown = f"r0 = 0x{r0:x}" if r0 >= 0 else f"r0 = {r0}"
        if r0 >= SIGN:
            shown += f" ({r0 - 2 * SIGN})"
        elif r0 > 9:
            shown += f" ({r0})"
        apart = other.has("r0") and other.whole("r0") != r0
        words += f' <mark class="first">{shown}</mark>' if apart else f" {shown}"
    if one.has("detail"):
        words += f" <code>{safe(one.text('detail'))}</code>"
    return words


def dump(data: bytes, beside: bytes | None = None, first: int | None = None) -> str:
    """Return *data* as lines of hexadecimal bytes; what *beside* has otherwise is marked.

    *first*: offset of the first byte whose difference counts: others may be padding.
    """
    lines = []
    for start in range(0, min(len(data), MOST), LINE):
        parts = [f'<span class="dim">{start:04x}</span> ']
        for offset in range(start, min(start + LINE, len(data), MOST)):
            digits = f"{data[offset]:02x}"
            if beside is not None and offset == first:
                digits = f'<mark class="first">{digits}</mark>'
            elif beside is not None and data[offset : offset + 1] != beside[offset : offset + 1]:
                digits = f"<mark>{digits}</mark>"
            gap = "  " if offset % GROUP == 0 and offset != start else " "
            parts.append(gap + digits)
        lines.append("".join(parts))
    if len(data) > MOST:
        lines.append(f"and {len(data) - MOST} bytes more")
    return "\n".join(lines)
