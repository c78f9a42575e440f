"""The report in headless Chromium: laid out at desktop and phone width without clipped text, and without scripts.

The page has no scripts of its own, so a page around it measures it in a frame of the width of the device.
"""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import archsim
from archsim.analysis.efficiency import efficiency
from archsim.report.compare_page import compare_page
from archsim.report.html import render_html
from archsim.report.page import Page
from archsim.report.run_report import report_page
from archsim.result import Result

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
HOSTILE = "<script>alert(1)</script>"
MEASURE = """
<!doctype html><meta charset="utf-8"><title>measure</title>
<iframe id="page" style="border:0;width:{width}px;height:3000px" srcdoc="{page}"></iframe>
<pre id="found"></pre>
<script>
window.onload = () => {{
  const frame = document.getElementById("page"), inner = frame.contentDocument, root = inner.documentElement;
  inner.querySelectorAll("details").forEach(part => part.open = true);
  const cut = [];
  for (const part of inner.querySelectorAll("body *")) {{
    const words = part.tagName + "." + (part.getAttribute("class") || "") + ": " + part.textContent.trim().slice(0, 60);
    const box = part.getBoundingClientRect();
    if (getComputedStyle(part).overflowX === "hidden" && part.scrollWidth > part.clientWidth + 1) cut.push(words);
    if (!part.closest(".scroll") && box.width > 0 && (box.right > root.clientWidth + 1 || box.left < -1))
      cut.push(words + " at " + box.left + " to " + box.right);
  }}
  document.getElementById("found").textContent = JSON.stringify({{
    cut, width: root.clientWidth, needed: root.scrollWidth,
    sections: [...inner.querySelectorAll("main h2")].filter(part => part.offsetHeight > 0).map(part => part.id),
    scripts: inner.querySelectorAll("script").length,
    texts: [...inner.querySelectorAll("svg text")].length,
    named: [...inner.querySelectorAll(".label")].filter(part => part.textContent === {name}).length,
  }});
}};
</script>
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (Debian: apt-get install chromium)"),
]


@pytest.fixture(scope="module")
def result() -> Result:
    """A run with tried changes, one of them refused, whose first layer has a name that is markup."""
    workload = archsim.load_workload("digits-cnn", "poisson:0.2", timesteps=3)
    run = archsim.simulate(archsim.load_hardware("demo"), workload)
    run.changes = archsim.what_if(
        run, [{"tile.pe.fetch_bits_per_cycle": 128}, {"tile.pe.crossbar.rows": 8, "chip.tiles": 1}]
    )
    run.efficiency = efficiency(run)
    for table in (run.layers, run.spikes, run.paths, run.tiles):
        table.replace({column: {"conv1": HOSTILE} for column in ("layer", "layers") if column in table}, inplace=True)
    run.log.layers[run.log.layers.index("conv1")] = HOSTILE
    return run


def laid_out(page: str, width: int, folder: Path) -> dict:
    """What the page is like in a frame of a width, and the errors on the console."""
    around = folder / "around.html"
    filled = MEASURE.format(
        width=width, page=html.escape(page, quote=True), name=json.dumps(HOSTILE).replace("<", "\\u003c")
    )
    around.write_text(filled, encoding="utf-8")
    command = [
        CHROMIUM,
        "--headless",
        "--hide-scrollbars",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={folder / 'profile'}",
    ]
    command += ["--enable-logging=stderr", "--virtual-time-budget=10000", "--dump-dom", around.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found is not None, done.stderr
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return {**json.loads(html.unescape(found.group(1))), "console": console}


@pytest.fixture(scope="module")
def comparison(result) -> Page:
    workload = archsim.load_workload("digits-cnn", "poisson:0.2", timesteps=3)
    other = archsim.simulate(archsim.load_hardware("demo", {"tile.pe.adc.cols_per_adc": 4}), workload)
    return compare_page(archsim.compare(result, other), ("before", "after"))


@pytest.mark.parametrize("width", [1280, 360])
def test_comparison_is_laid_out_without_clipped_text(comparison, tmp_path, width):
    found = laid_out(render_html(comparison), width, tmp_path)
    assert (found["cut"], found["console"], found["scripts"]) == ([], [], 0)
    assert found["needed"] <= found["width"] == width
    assert found["sections"] == [section.id for section in comparison.sections]


@pytest.mark.parametrize("width", [1280, 360])
def test_report_is_laid_out_without_clipped_text(result, tmp_path, width):
    page = report_page(result)
    found = laid_out(render_html(page), width, tmp_path)
    assert found["cut"] == []
    assert found["needed"] <= found["width"] == width
    assert found["console"] == []
    assert found["sections"] == [section.id for section in page.sections]
    assert found["scripts"] == 0
    assert found["texts"] > 20
    assert found["named"] > 2
