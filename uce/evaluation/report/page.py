"""Blocks of a report and the page around them: plain HTML that needs no network, its style and its few lines of script.

Everything that is given as text is escaped; only what these functions return (`Html`) goes into a page as it is.
"""

import base64
import hashlib
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Literal, NewType

import numpy as np

from uce.files import atomic_path

Html = NewType("Html", str)
Level = Literal["alarm", "note", "good"]


@dataclass(frozen=True)
class Cell:
    """One entry of a table.

    Attributes
    ----------
    value
        What sorts, and what is saved to the TSV file: a number at full precision, or a text; None or NaN is missing.
    shown
        Another text to show for it.
    note
        A line in small letters below.
    look
        `best`, or a status (`failed`, `skipped`, `undefined`, `suspect`) that colours it.
    """

    value: object
    shown: str = ""
    note: str = ""
    look: str = ""


@dataclass(frozen=True)
class Picture:
    """A drawn figure: `data` is SVG or PNG, `width` in CSS pixels; `alt` says what is to be seen without seeing it."""

    data: bytes
    alt: str
    width: float

    @property
    def address(self) -> str:
        """The picture itself as an address (`data:`)."""
        kind = "png" if self.data.startswith(b"\x89PNG") else "svg+xml"
        return f"data:image/{kind};base64,{base64.b64encode(self.data).decode()}"


@dataclass(frozen=True)
class Section:
    """A part of a page with a heading, listed in the contents."""

    title: str
    body: Html


def number(value: object) -> str:
    """A number as people read it: 0.643, 12,034, 4.2e-05; a dash where there is none."""
    value = _python(value)
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) or (value.is_integer() and abs(value) >= 1000):
        return f"{int(value):,}".replace("-", "−")
    small = 0 < abs(value) < 0.0005
    return (f"{value:.1e}" if small else f"{value:,.1f}" if abs(value) >= 10 else f"{value:.3f}").replace("-", "−")


def paragraph(*sentences: str, look: str = "") -> Html:
    """Text; `look` is `lead`, `small` or `verdict`."""
    return Html(f"<p{_class(look)}>{escape(' '.join(sentences))}</p>")


def banner(text: str, level: Level = "alarm") -> Html:
    """A line nobody can miss."""
    return Html(f'<p class="banner {level}" role="note">{escape(text)}</p>')


def heading(text: str) -> Html:
    """Of a part of a section."""
    return Html(f"<h3>{escape(text)}</h3>")


def bullets(items: Iterable[str]) -> Html:
    """A list of sentences."""
    return Html(f"<ul>{''.join(f'<li>{escape(item)}</li>' for item in items)}</ul>")


def code(text: str) -> Html:
    """Something to type."""
    return Html(f"<pre>{escape(text)}</pre>")


def facts(pairs: Iterable[tuple[str, object]]) -> Html:
    """Few numbers in large letters, (name, value) each."""
    tiles = (f"<div><dt>{escape(name)}</dt><dd>{escape(number(value))}</dd></div>" for name, value in pairs)
    return Html(f'<dl class="facts">{"".join(tiles)}</dl>')


def figure(picture: Picture, title: str, caption: str = "", *, wide: bool = False) -> Html:
    """A picture with a caption; one that is `wide` scrolls in its card on a phone instead of becoming too small."""
    image = f'<img src="{picture.address}" alt="{escape(picture.alt)}" width="{picture.width:.0f}">'
    scroll = f' tabindex="0" style="--full:{picture.width:.0f}px"' if wide else ""
    return Html(
        f'<figure id="{identifier("figure " + title)}"><div class="card{" wide" if wide else ""}"{scroll}>{image}</div>'
        f"<figcaption><b>{escape(title)}</b> {escape(caption)}</figcaption></figure>"
    )


def columns(blocks: Iterable[Html], *, count: Literal["one", "many"] = "many") -> Html:
    """Blocks beside each other where there is room, below each other on a phone."""
    return Html(f'<div class="columns {count}">{"".join(blocks)}</div>')


def legend(entries: Iterable[tuple[str, str, str]]) -> Html:
    """What colours mean: (colour, sign on the colour, meaning)."""
    items = (
        f'<li><span class="swatch" style="background:{colour};color:{ink_on(colour)}">{escape(sign) or "&nbsp;"}</span>'
        f"{escape(meaning)}</li>"
        for colour, sign, meaning in entries
    )
    return Html(f'<ul class="legend">{"".join(items)}</ul>')


def table(title: str, names: Sequence[str], rows: Iterable[Sequence[object]]) -> Html:
    """A table that can be sorted, filtered and saved; the first column names the row. Entries are values or `Cell`s."""
    cells = [[entry if isinstance(entry, Cell) else Cell(entry) for entry in row] for row in rows]
    numeric = [all(_is_number(row[i].value) for row in cells) for i in range(len(names))]
    head = "".join(
        f'<th scope="col"{_class("number" if right and i else "")}>{escape(name)}</th>'
        for i, (name, right) in enumerate(zip(names, numeric, strict=True))
    )
    body = "".join(f"<tr>{''.join(_entry(cell, i == 0) for i, cell in enumerate(row))}</tr>" for row in cells)
    name = identifier(title)
    return Html(
        f'<div class="table"><div class="head"><p>{escape(title)}</p></div>'
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(title)}"><table id="{name}">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div></div>"
    )


def _entry(cell: Cell, first: bool) -> str:
    value = _python(cell.value)
    numeric = _is_number(value)
    shown = cell.shown or number(value)
    long = "long" if any(len(word) > 24 for word in f"{shown} {cell.note}".split()) else ""
    prose = "prose" if len(shown) > 30 else ""
    look = " ".join(filter(None, ("number" if numeric else "text", cell.look, prose, long)))
    held = f' data-value="{"" if value is None else escape(str(value))}"' if numeric or cell.note or cell.shown else ""
    note = f"<small>{escape(cell.note)}</small>" if cell.note else ""
    inner = f"{escape(shown)}{note}"
    return f'<th scope="row"{_class(long)}{held}>{inner}</th>' if first else f'<td class="{look}"{held}>{inner}</td>'


def section(title: str, *blocks: Html) -> Section:
    """A part of the page."""
    return Section(title, Html("".join(blocks)))


def page(title: str, top: Iterable[Html], sections: Sequence[Section], *, footer: str = "") -> str:
    """The whole file: what stands at the top, the contents, the sections.

    The page forbids itself to load anything and to run any script but its own.
    """
    style, script = _resource("page.css"), _resource("page.js")
    allowed = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src '{_digest(script)}'"
    links = "".join(f'<li><a href="#{identifier(part.title)}">{escape(part.title)}</a></li>' for part in sections)
    parts = "".join(
        f'<section id="{identifier(part.title)}"><h2>{escape(part.title)}</h2>{part.body}</section>'
        for part in sections
    )
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{allowed}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<style>{style}</style></head>\n<body><a class="skip" href="#content">Skip to the content</a>'
        f'<header><h1>{escape(title)}</h1>{"".join(top)}</header><nav aria-label="Contents"><ul>{links}</ul></nav>'
        f'<main id="content">{parts}</main><footer>{escape(footer)}</footer>\n<script>{script}</script></body></html>\n'
    )


def write_page(path: Path, html: str) -> Path:
    """Write a page in one step, so that no half of one is ever seen."""
    with atomic_path(path) as temporary:
        temporary.write_text(html, encoding="utf-8", newline="\n")
    return path


def identifier(text: str) -> str:
    """`text` as the name of an element, a file or a link: lower case letters, digits, hyphens."""
    words = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:60]
    return words if words == text.lower() else f"{words}-{hashlib.blake2b(text.encode(), digest_size=3).hexdigest()}"


def ink_on(colour: str) -> str:
    """Black or white, whichever reads better on a colour given as #rrggbb."""
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return "#000000" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "#ffffff"


def _python(value: object) -> object:
    """A NumPy scalar as Python has it; None for NaN."""
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and math.isnan(value) else value


def _is_number(value: object) -> bool:
    """Whether it is a number, or a missing one."""
    value = _python(value)
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _class(look: str) -> str:
    return f' class="{look}"' if look else ""


def _resource(name: str) -> str:
    return (files("uce") / "data" / "report" / name).read_text(encoding="utf-8")


def _digest(script: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
