"""A page of sections as Markdown with tables, as GitHub and pandoc read it: for an appendix, or for reading raw.

Charts are replaced by the tables of their numbers. Every text is escaped, so names from files are never markup.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from archsim.report.page import Bullets, Chart, Code, Figures, Folded, Page, Picture, Table, Text

_MARKUP = re.compile(
    r"[\\`*|~$]|(?<!\w)_|_(?!\w)|<(?=[A-Za-z/!?])|&(?=[#A-Za-z])|\](?=[(\[:])"
    r"|^[#+=-]|(?:(?<=^\d)|(?<=^\d\d))[.)](?=\s|$)"
)
"""What could be read as markup where it stands: emphasis, code, cells, formulas, tags, entities, links; and at the
beginning of a line headings, rules and lists."""


def render_markdown(page: Page) -> str:
    """The page as Markdown text."""
    blocks = [f"# {escape(page.title)}", escape(page.verdict)]
    for section in page.sections:
        blocks.append(f"## {escape(section.question)}")
        blocks += [block for part in section.parts if (block := _WRITERS[part.kind](part))]
    return "\n\n".join(blocks) + "\n"


def escape(text: str) -> str:
    """Text that Markdown shows letter by letter, on one line."""
    return _MARKUP.sub(r"\\\g<0>", " ".join(text.split()))


def _text(part: Text) -> str:
    return f"**{escape(part.text)}**" if part.tone == "strong" else escape(part.text)


def _bullets(part: Bullets) -> str:
    return "\n".join(f"- {escape(item)}" for item in part.items)


def _figures(part: Figures) -> str:
    return _grid(("figure", "value", "what is counted"), part.rows, n_text=3)


def _table(part: Table) -> str:
    rows = [*part.rows, part.foot] if part.foot else part.rows
    end = "" if part.caption.endswith("?") else ":"
    return f"{escape(part.caption)}{end}\n\n{_grid(part.head, rows, part.n_text)}"


def _chart(part: Chart) -> str:
    if part.table is not None:
        return _table(part.table)
    return _table(Table(part.caption, ("", ""), tuple((bar.label, bar.value) for bar in part.bars), n_text=2))


def _picture(part: Picture) -> str:
    return _table(part.table) if part.table is not None else ""


def _code(part: Code) -> str:
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", part.text)), default=0))
    return f"{fence}{part.language}\n{part.text.rstrip()}\n{fence}"


def _folded(part: Folded) -> str:
    return escape(part.instead)


def _grid(head: Sequence[str], rows: Iterable[Sequence[str]], n_text: int) -> str:
    """A table; columns after the first `n_text` are numbers and stand right."""
    marks = ("---" if column < n_text else "--:" for column in range(len(head)))
    lines = [_line(map(escape, head)), _line(marks), *(_line(map(escape, row)) for row in rows)]
    return "\n".join(lines)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


_WRITERS: dict[str, Callable[[Any], str]] = {
    part.kind: writer
    for part, writer in (
        (Text, _text),
        (Bullets, _bullets),
        (Figures, _figures),
        (Table, _table),
        (Chart, _chart),
        (Picture, _picture),
        (Code, _code),
        (Folded, _folded),
    )
}
