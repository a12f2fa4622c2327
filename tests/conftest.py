"""What all tests share."""

import os
from fnmatch import fnmatch
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as in the workflow; before torch is loaded

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def parity() -> Path:
    """Golden inputs and outputs of the published operators, with random weights: see README.md there."""
    return ROOT / "tests" / "data" / "parity"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The developers' data folder beside the project; users do not have it."""
    folder = ROOT.parent / "shared"
    if not (folder / "DESIGN.md").is_file():
        pytest.skip("the developers' shared data folder is not beside the project")
    return folder


# What a test needs says what it is: markers (pyproject.toml) by folder and fixture, so that none is forgotten.
MARKERS = {
    ("tests", "shared"): "real_scenes",
    ("workflow", "run"): "slow",
    ("workflow", "finished"): "slow",
    ("workflow", "campaign"): "slow",
    ("workflow", "slurm"): "slurm",
    ("workflow", "look"): "browser",
    ("unit", "chromium"): "browser",
}


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark a test by the fixtures that it asks for."""
    for (folder, fixture), marker in MARKERS.items():
        if folder in item.path.parts and fixture in getattr(item, "fixturenames", ()):
            item.add_marker(marker)


skipped: list[str] = []  # "test: reason" of each


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note what was skipped, and why."""
    if report.skipped and not hasattr(report, "wasxfail"):
        skipped.append(f"{report.nodeid}: {report.longrepr[2].removeprefix('Skipped: ')}")


pytest_collectreport = pytest_runtest_logreport  # whole modules too


def unexpected_skips() -> list[str]:
    """With CI=true, skips that tests/expected_skips.txt does not name."""
    if os.environ.get("CI") != "true":
        return []
    lines = (ROOT / "tests" / "expected_skips.txt").read_text().splitlines()
    expected = [line for line in lines if line and not line.startswith("#")]
    return [s for s in skipped if not any(fnmatch(s, pattern) for pattern in expected)]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run in CI that skips what it should not."""
    if unexpected_skips() and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which skips made the run fail; pytest's -ra lists all of them."""
    if found := unexpected_skips():
        terminalreporter.section("failed: skipped, but not in tests/expected_skips.txt", red=True)
        terminalreporter.write_line("\n".join(found))
