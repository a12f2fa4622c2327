"""The executed notebook: its code runs here, and says what it says there."""

import base64
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "workflow" / "docs" / "quick_map.ipynb"
NUMBER = re.compile(r"\d+(?:\.\d+)?")


def cells() -> list[dict]:
    return [c for c in json.loads(NOTEBOOK.read_text())["cells"] if c["cell_type"] == "code"]


def printed(cell: dict, name: str = "stdout") -> str:
    """What a cell has written, as the notebook keeps it."""
    return "".join("".join(o["text"]) for o in cell["outputs"] if o.get("name") == name)


def test_it_is_small_and_knows_no_machine():
    assert NOTEBOOK.stat().st_size < 300_000
    pictures = [o["data"]["image/png"] for c in cells() for o in c["outputs"] if "data" in o]
    assert len(pictures) == 1
    assert base64.b64decode(pictures[0]).startswith(b"\x89PNG")
    text = NOTEBOOK.read_text().replace(pictures[0], "")
    assert not re.search(r"/(home|root|work|tmp|usr|opt|Users)\b", text)
    assert [c["execution_count"] for c in cells()] == list(range(1, len(cells()) + 1))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive")
def test_its_code_says_what_it_shows(capsys, caplog):
    import matplotlib

    matplotlib.use("agg")
    names: dict = {}
    for cell in cells():
        caplog.clear()
        exec("".join(cell["source"]), names)
        warned = "\n".join(record.getMessage() for record in caplog.records if record.levelno >= 30)
        for now, then in (
            (capsys.readouterr().out, printed(cell)),
            (warned, printed(cell, "stderr")),
        ):
            assert NUMBER.sub("#", now).strip() == NUMBER.sub("#", then).strip()
            # another processor rounds otherwise, and then a few pixels are of another class
            told = list(map(float, NUMBER.findall(then)))
            assert list(map(float, NUMBER.findall(now))) == pytest.approx(told, abs=1.5)
    assert not Path(names["folder"].name).exists()
