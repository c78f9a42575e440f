"""A page of sections as one self-contained HTML file without scripts, equal bytes for equal pages."""

from __future__ import annotations

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined

from archsim.report.page import Page
from archsim.report.text import keep_units
from archsim.version import VERSION


def render_html(page: Page) -> str:
    """The page as HTML text; every part is drawn by the macro of `parts.html.j2` that is named like its kind."""
    return _environment().get_template("page.html.j2").render(page=page, version=VERSION)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("archsim.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["keep_units"] = keep_units
    return environment
