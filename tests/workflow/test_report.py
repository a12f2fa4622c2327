"""The report: one file that shows everything without a network, looked at with a browser."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from html import unescape
from pathlib import Path

import pytest
from runs import command

RUN = "results/demo/hsi"
CHROMIUM = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    # every address leads nowhere: what the report needs must be in it
    *(
        "--proxy-server=http://127.0.0.1:9",
        "--window-size=1400,1000",
        "--virtual-time-budget=10000",
    ),
]


@pytest.fixture(scope="module")
def report(finished, tmp_path_factory) -> Path:
    work = tmp_path_factory.mktemp("report") / "work"
    shutil.copytree(finished, work)
    done = subprocess.run(
        command("--report", "report.html"), cwd=work, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return work / "report.html"


@pytest.fixture(scope="module")
def look(report, tmp_path_factory) -> Callable[..., str]:
    """Open the report in a browser, go where a click would lead, and return the page that is then to be seen."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("chromium is not installed (apt: chromium)")

    def call(*steps: str) -> str:
        profile = tmp_path_factory.mktemp("chromium")
        page = profile / "report.html"
        page.write_text(
            report.read_text() + f"<script>{GO.replace('STEPS', json.dumps(steps))}</script>"
        )
        done = subprocess.run(
            [
                *("timeout", "-k", "5", "120", program, *CHROMIUM),
                *(f"--user-data-dir={profile / 'data'}", "--dump-dom", page.as_uri()),
            ],
            capture_output=True,
            text=True,
            env=os.environ | {"HOME": str(profile)},
        )
        assert done.returncode == 0, done.stderr[-3000:]
        seen = re.search(r'<div id="seen">(.*?)</div><!--end-->', done.stdout, re.S)
        assert seen, "the page did not get to its end:\n" + done.stderr[-3000:]
        return seen[1]

    return call


# After each step React needs a moment. The page's visible part, images' sizes, and what was asked of the network go
# into an element that the test can tell from the page's own scripts.
GO = """
(async () => {
  const wait = () => new Promise((done) => setTimeout(done, 300));
  await wait();
  for (const step of STEPS) { (0, eval)(step); await wait(); }
  const asked = performance.getEntriesByType("resource").map((entry) => entry.name);
  const images = [...document.querySelectorAll("#app img")].map((image) => image.naturalWidth);
  const frames = [...document.querySelectorAll("#app iframe")].map((frame) => frame.src.slice(0, 30));
  const seen = document.createElement("div");
  seen.id = "seen";
  seen.textContent = JSON.stringify({
    text: document.querySelector("#app").innerText,
    images, frames, asked: asked.filter((name) => !name.startsWith("data:")),
  });
  document.body.append(seen, document.createComment("end"));
})();
"""


def told(seen: str) -> dict:
    return json.loads(unescape(seen))


def view(path: str, content: str) -> str:
    """What the eye button beside a result does."""
    return f"app.setView({{content: '{content}', contentPath: results['{path}'].data_uri, resultPath: '{path}'}})"


def test_first_page(look):
    page = told(look())
    lines = page["text"].splitlines()
    assert {"Maps", "Spectral evidence", "Training", "Accuracy"} <= set(lines), (
        "categories in the menu"
    )
    assert "Zero-shot land-cover maps from hyperspectral images" in page["text"]
    assert page["asked"] == [], "the report asks the network for something"


@pytest.mark.parametrize(
    ("category", "path", "caption"),
    [
        ("Maps", f"{RUN}/map.png", "the land-cover map, and its confidence"),
        ("Spectra of the classes", f"{RUN}/spectra.png", "one standard deviation to each side"),
        ("Spectral evidence", "results/demo/evidence.png", "the library's nearest spectrum"),
        ("Training", f"{RUN}/seed-0/epochs.png", "No ground truth is involved"),
        ("Accuracy", "results/summary.html", "mean and standard deviation over seeds"),
    ],
)
def test_each_category_shows_its_result_and_caption(look, category, path, caption):
    content = "html" if path.endswith("html") else "img"
    show, info = f"app.showCategory('{category}')", f"app.showResultInfo('{path}')"
    page = told(look(show, view(path, content), info))
    assert caption in " ".join(page["text"].split())
    if content == "img":
        assert [width for width in page["images"] if width > 500], "the picture is shown"
    else:
        assert [src for src in page["frames"] if src.startswith("data:text/html")]
    assert page["asked"] == []


def test_results_are_listed_by_run_and_stage(look):
    lines = told(look("app.showCategory('Maps')"))["text"].upper().splitlines()
    assert any("RUN" in line and "MAP" in line for line in lines)
    found = [line.split() for line in lines]
    for wanted in (["HSI", "CONSENSUS"], ["PUBLISHED", "CONSENSUS"], ["LDA", "BASELINE"]):
        assert wanted in found
