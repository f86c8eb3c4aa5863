"""The parts that pages are made of: text made safe, tiles, tables, bars, a curve."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from harness.corpus import Known

ORDER = ("diverge", "rejected", "compile_error", "known", "unknown", "agree")  # the worst first
WORDS = {"compile_error": "compile error"}

# The page may load nothing, wherever it is put and whatever is in it.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
_STYLE = """
:root{color-scheme:light dark;--line:#8884;--soft:#8881;--agree:#2e9e4f;--diverge:#e5393a;
--rejected:#d65a00;--known:#8e6bd8;--compile_error:#c2185b;--unknown:#858b94}
*{box-sizing:border-box}
body{font:15px/1.5 system-ui,sans-serif;margin:0 auto;max-width:1500px;padding:1.2rem}
h1{font-size:1.4rem;line-height:1.3;margin:.2rem 0}h2{font-size:1.1rem;margin:2rem 0 .5rem}
h3{font-size:.95rem;margin:1rem 0 .3rem}p{margin:.4rem 0}.dim,small{opacity:.72}
.unbroken{white-space:nowrap}
pre,code,.hex{font:12.5px/1.5 ui-monospace,SFMono-Regular,Menlo,monospace}
pre{background:var(--soft);padding:.6rem .8rem;overflow:auto;border-radius:6px;margin:.3rem 0}
code{overflow-wrap:anywhere}
.tiles{display:grid;grid-template-columns:repeat(auto-fill,minmax(8.2rem,1fr));gap:.6rem;
margin:1rem 0}
.tile{border:1px solid var(--line);border-left:4px solid var(--c,var(--line));border-radius:6px;
padding:.45rem .7rem;overflow-wrap:anywhere}
.tile b{display:block;font-size:1.3rem;line-height:1.25;font-variant-numeric:tabular-nums}
.tile span{font-size:.82rem;opacity:.75}
.verdict,.tag{--c:CanvasText;display:inline-block;border-radius:1rem;border:1px solid var(--c);
color:var(--c);padding:0 .6rem;font-size:.82rem;white-space:nowrap}
.verdict{padding:.15rem .8rem;font-size:.95rem;white-space:normal}
.agree{--c:var(--agree)}.diverge{--c:var(--diverge)}.rejected{--c:var(--rejected)}
.known{--c:var(--known)}.compile_error{--c:var(--compile_error)}.unknown{--c:var(--unknown)}
.wide{overflow:auto;max-height:46rem;width:fit-content;max-width:100%;
border:1px solid var(--line);border-radius:6px}
table{border-collapse:separate;border-spacing:0;font-size:.88rem}
td,th{border-bottom:1px solid var(--line);border-right:1px solid var(--line);
padding:.22rem .6rem;text-align:left;vertical-align:top}
thead th{position:sticky;top:0;background:Canvas;z-index:1;font-weight:600}
td.n{text-align:right;font-variant-numeric:tabular-nums}
table.cross td{text-align:center;min-width:4.2rem}table.cross thead th+th{text-align:center}
table.cross tbody th{position:sticky;left:0;background:Canvas;font-weight:400}
td.cell{background:color-mix(in srgb,var(--c) 18%,transparent);
border-bottom:2px solid var(--c);font-variant-numeric:tabular-nums}
td.cell small{display:block;opacity:1;color:var(--c);font-weight:600;white-space:nowrap}
details.item{border:1px solid var(--line);border-left:4px solid var(--c,var(--line));
border-radius:6px;margin:.45rem 0;padding:.35rem .8rem}
details.item>summary{cursor:pointer;overflow-wrap:anywhere}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,29rem),1fr));gap:.7rem}
.pair>div{min-width:0}mark{background:#ffd54a99;color:inherit;border-radius:2px}
mark.first{background:#e5393aaa;outline:1px solid #e5393a;font-weight:700}
.bar{display:flex;height:.9rem;border-radius:.45rem;overflow:hidden;margin:.6rem 0;gap:1px}
.bar i{background:var(--c);min-width:2px}
.part{background:linear-gradient(to right,color-mix(in srgb,var(--rejected) 30%,transparent)
var(--w),transparent var(--w))}
svg{max-width:100%;height:auto}svg text{font:11px system-ui,sans-serif;fill:CanvasText}
svg .axis{stroke:#8888;fill:none}svg .curve{stroke:#3f7fdd;fill:none;stroke-width:2}
svg .grid{stroke:#8883}
.filter{position:sticky;top:0;z-index:3;background:Canvas;display:flex;flex-wrap:wrap;
gap:.6rem;align-items:center;padding:.5rem 0;border-bottom:1px solid var(--line)}
.filter input{font:inherit;padding:.2rem .5rem;flex:1 1 14rem;max-width:30rem}
.filter select{font:inherit;padding:.2rem}[hidden]{display:none!important}
@media print{.filter{display:none}.wide{max-height:none}}
"""
_SCRIPT = """
const rows=[...document.querySelectorAll('[data-o]')];
if(rows.length){const bar=document.createElement('div');bar.className='filter';
const text=document.createElement('input');text.type='search';
text.placeholder='show only what has these words';text.setAttribute('aria-label','filter');
const pick=document.createElement('select');pick.setAttribute('aria-label','outcome');
const all=new Set(rows.flatMap(r=>r.dataset.o.split(' ')).filter(o=>o));
for(const o of ['',...[...all].sort()]){const e=document.createElement('option');e.value=o;
e.textContent=o?o.replace('_',' '):'any outcome';pick.append(e)}
const said=document.createElement('small');said.setAttribute('role','status');
const low=rows.map(r=>r.textContent.toLowerCase());
function show(){const words=text.value.toLowerCase().split(/\\s+/).filter(w=>w);let n=0;
rows.forEach((r,i)=>{const on=words.every(w=>low[i].includes(w))&&
(!pick.value||r.dataset.o.split(' ').includes(pick.value));r.hidden=!on;n+=on});
said.textContent=n<rows.length?n+' of '+rows.length+' rows':''}
text.addEventListener('input',show);pick.addEventListener('change',show);
bar.append(text,pick,said);document.querySelector('.tiles').after(bar)}
document.body.dataset.ready='yes';
"""


def safe(text: object) -> str:
    """Return *text* as HTML that shows it; what does not print shows as its code."""
    return escape("".join(c if c.isprintable() or c in "\n\t" else _code(c) for c in str(text)))


def _code(c: str) -> str:
    number = ord(c)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"


def document(title: str, parts: Iterable[str]) -> str:
    """Return a whole page of *parts*, HTML each; *title* is plain text."""
    return "\n".join(
        [
            "<!doctype html>",
            f'<html lang="en"><head><meta charset="utf-8"><title>{safe(title)}</title>',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width,initial-scale=1">',
            f"<style>{_STYLE}</style></head><body>",
            f"<h1>{safe(title)}</h1>",
            *parts,
            f"<script>{_SCRIPT}</script></body></html>",
            "",
        ]
    )


def number(value: float) -> str:
    """Return *value* for people."""
    return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}"


def counted(count: int, noun: str) -> str:
    """Return *count* with its noun."""
    return f"{number(count)} {noun}{'' if count == 1 else 's'}"


def unbroken(text: str) -> str:
    """Return *text* as HTML that stays on one line."""
    return f'<span class="unbroken">{safe(text)}</span>'


def verdict(good: bool, words: str) -> str:
    """Return the sentence that says it all."""
    return f'<p><span class="verdict {"agree" if good else "diverge"}">{safe(words)}</span></p>'


def tiles(figures: Iterable[tuple[str, object, str]]) -> str:
    """Return figures: name, value, and the outcome whose colour it has ("": none).

    A figure of zero has no colour, so that what is there is seen.
    """
    out = ['<div class="tiles">']
    for name, value, outcome in figures:
        shown = number(value) if isinstance(value, int | float) else str(value)
        kind = f" {outcome}" if outcome and value else ""
        out.append(f'<div class="tile{kind}"><b>{safe(shown)}</b><span>{safe(name)}</span></div>')
    return "".join([*out, "</div>"])


def tag(outcome: str) -> str:
    """Return an outcome's name in its colour."""
    return f'<span class="tag {css(outcome)}">{safe(WORDS.get(outcome, outcome))}</span>'


def css(outcome: str) -> str:
    """Return the class of *outcome*; what we do not know has none."""
    return outcome if outcome in ORDER else ""


def worst(outcomes: Iterable[str]) -> str:
    """Return the outcome that matters most; one that we do not know matters more than all."""
    found = set(outcomes)
    strange = sorted(found - set(ORDER))
    return strange[0] if strange else next(o for o in ORDER if o in found)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; cells are HTML."""
    out = ['<div class="wide"><table><thead><tr>', *(f"<th>{safe(h)}</th>" for h in heads)]
    out.append("</tr></thead><tbody>")
    out += ["<tr>" + "".join(_cell(cell) for cell in row) + "</tr>" for row in rows]
    return "".join([*out, "</tbody></table></div>"])


def _cell(html: str) -> str:
    numeric = html.replace(",", "").replace(".", "").isdecimal()
    return f'<td class="n">{html}</td>' if numeric else f"<td>{html}</td>"


def item(summary: str, body: Iterable[str], outcome: str = "", *, opened: bool = False) -> str:
    """Return something to fold out; *summary* and *body* are HTML."""
    state = " open" if opened else ""
    return (
        f'<details class="item {css(outcome)}" data-o="{safe(outcome)}"{state}>'
        f"<summary>{summary}</summary>{''.join(body)}</details>"
    )


def bar(counts: Mapping[str, int]) -> str:
    """Return outcomes as parts of one bar, with their counts below it."""
    total = sum(counts.values())
    if not total:
        return ""
    order = sorted(counts, key=lambda o: -counts[o])
    parts = "".join(f'<i class="{css(o)}" style="flex:{counts[o]}"></i>' for o in order)
    words = " ".join(
        f"{tag(o)} {number(counts[o])} <small>({counts[o] / total:.1%})</small>" for o in order
    )
    return f'<div class="bar" aria-hidden="true">{parts}</div><p>{words}</p>'


def note(entry: Known | None) -> str:
    """Return what an entry of known.toml says."""
    if entry is None:
        return '<p class="dim">No such entry in the file of known divergences at hand.</p>'
    words = f"<p>{tag(entry.kind)} {tag(entry.status)}</p><p>{safe(entry.note.strip())}</p>"
    if not entry.link:
        return words
    if entry.link.startswith(("https://", "http://")):
        return f'{words}<p><a rel="noreferrer" href="{safe(entry.link)}">{safe(entry.link)}</a></p>'
    return f"{words}<p>{safe(entry.link)}</p>"


def curve(points: Sequence[tuple[float, float]], across: str, up: str) -> str:
    """Return (x, y) *points*, x rising, as a line, with what the axes count; inline SVG."""
    width, height, left, low = 760, 230, 70, 34
    right, top = max(x for x, _ in points) or 1, max(y for _, y in points) or 1
    wide, tall = width - left - 14, height - low - 12

    def place(x: float, y: float) -> str:
        return f"{left + wide * x / right:.1f},{12 + tall * (1 - y / top):.1f}"

    out = [
        f'<svg viewBox="0 0 {width} {height}" width="{width}" role="img" '
        f'aria-label="{safe(up)} by {safe(across)}">'
    ]
    for part in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = 12 + tall * (1 - part)
        x = left + wide * part
        out.append(f'<path class="grid" d="M{left} {y:.1f}H{width - 14}"/>')
        out.append(
            f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">'
            f"{number(round(top * part))}</text>"
            f'<text x="{x:.1f}" y="{height - low + 15}" text-anchor="middle">'
            f"{number(round(right * part))}</text>"
        )
    out.append(f'<path class="axis" d="M{left} 12V{height - low + 0.5}H{width - 14}"/>')
    out.append(f'<polyline class="curve" points="{" ".join(place(x, y) for x, y in points)}"/>')
    out.append(
        f'<text x="{left + wide / 2:.0f}" y="{height - 4}" text-anchor="middle">'
        f"{safe(across)}</text>"
        f'<text x="{left + 8}" y="24">{safe(up)}</text>'
    )
    return "".join([*out, "</svg>"])
