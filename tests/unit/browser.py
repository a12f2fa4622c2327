"""Chromium without a window, driven as a user would: real clicks, keys and fingers, over its debugging pipe."""

import base64
import json
import os
import select
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

OPTIONS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--hide-scrollbars",
    "--proxy-server=http://127.0.0.1:9",  # every address leads nowhere
    "--remote-debugging-pipe",
]
PATIENCE = 60  # seconds


class Browser:
    """One page. Messages of the Chrome DevTools Protocol go through two pipes: no port, no package."""

    def __init__(self, program: str, folder: Path) -> None:
        to_read, self._write = os.pipe()
        self._read, to_write = os.pipe()
        words = [program, *OPTIONS, f"--user-data-dir={folder / 'data'}", "about:blank"]
        self._process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{to_read} 4>&{to_write}', "bash", *words],
            pass_fds=(to_read, to_write),
            env=os.environ | {"HOME": str(folder)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_read)
        os.close(to_write)
        self._buffer, self._number, self._session = b"", 0, None
        self.messages: list[dict[str, Any]] = []  # what the page said by itself
        target = next(
            t for t in self.ask("Target.getTargets")["targetInfos"] if t["type"] == "page"
        )
        attached = self.ask("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log", "Accessibility"):
            self.ask(f"{domain}.enable")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._write)
        os.close(self._read)
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def ask(self, method: str, **options: Any) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": options}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            self.messages.append(answer)

    def _receive(self) -> dict[str, Any]:
        end = time.monotonic() + PATIENCE
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(0, end - time.monotonic()))
            assert ready, "the browser does not answer"
            part = os.read(self._read, 1 << 20)
            assert part, "the browser has ended"
            self._buffer += part
        line, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(line)

    def open(self, path: Path, width: int = 1400, height: int = 1000, touch: bool = False) -> None:
        """Show a page in a window of this size, and wait until its script is done with the map."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": touch}
        self.ask("Emulation.setDeviceMetricsOverride", **size)
        self.ask("Emulation.setTouchEmulationEnabled", enabled=touch)
        self.messages.clear()
        self.ask("Page.navigate", url=path.as_uri())
        self.until("document.readyState === 'complete'")

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        options = {"returnByValue": True, "awaitPromise": True}
        found = self.ask("Runtime.evaluate", expression=expression, **options)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def until(self, expression: str) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + PATIENCE
        while not self.evaluate(expression):
            assert time.monotonic() < end, f"never true: {expression}"
            time.sleep(0.05)

    def place(self, selector: str, x: float = 0.5, y: float = 0.5) -> tuple[float, float]:
        """Where in the window a share of an element lies; the page is scrolled to it."""
        return tuple(
            self.evaluate(
                f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
                "e.scrollIntoView({block: 'center', behavior: 'instant'}); const b = e.getBoundingClientRect();"
                f"return [b.left + {x} * b.width, b.top + {y} * b.height]; }})()"
            )
        )

    def mouse(self, kind: str, x: float, y: float, **options: Any) -> None:
        """A mouse event."""
        self.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, **options)

    def click(self, selector: str, x: float = 0.5, y: float = 0.5) -> None:
        """Press and release the mouse on an element."""
        self.drag(self.place(selector, x, y))

    def drag(self, start: tuple[float, float], stop: tuple[float, float] | None = None) -> None:
        """Press at one place, release at another."""
        held = {"button": "left", "clickCount": 1}
        self.mouse("mouseMoved", *start)
        self.mouse("mousePressed", *start, buttons=1, **held)
        if stop:
            middle = ((start[0] + stop[0]) / 2, (start[1] + stop[1]) / 2)
            for place in (middle, stop):
                self.mouse("mouseMoved", *place, buttons=1, button="left")
        self.mouse("mouseReleased", *(stop or start), buttons=0, **held)

    def fingers(self, *steps: list[tuple[float, float]]) -> None:
        """Fingers go from each list of places to the next one, and are taken off."""
        for kind, places in [("touchStart", steps[0]), *(("touchMove", s) for s in steps[1:])]:
            points = [{"x": x, "y": y, "id": i} for i, (x, y) in enumerate(places)]
            self.ask("Input.dispatchTouchEvent", type=kind, touchPoints=points)
        self.ask("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def press(self, key: str, shift: bool = False) -> None:
        """A key."""
        text = {"text": key} if len(key) == 1 else {}
        codes = {"Tab": 9, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}
        codes |= {" ": 32, "Enter": 13}
        options = {"key": key, "modifiers": 8 * shift, "windowsVirtualKeyCode": codes.get(key, 0)}
        self.ask("Input.dispatchKeyEvent", type="keyDown", **options, **text)
        self.ask("Input.dispatchKeyEvent", type="keyUp", **options)

    def picture(self, path: Path) -> None:
        """The whole page as a PNG."""
        size = self.ask("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        found = self.ask("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(found["data"]))

    def said(self, role: str) -> list[str]:
        """Names of the elements of a role, as a screen reader says them."""
        nodes = self.ask("Accessibility.getFullAXTree")["nodes"]
        shown = (n for n in nodes if not n["ignored"] and n.get("role", {}).get("value") == role)
        return [node.get("name", {}).get("value", "") for node in shown]

    def asked(self) -> list[str]:
        """Addresses that the page asked for, but for itself and what lies inside it."""
        sent = [
            m["params"] for m in self.messages if m.get("method") == "Network.requestWillBeSent"
        ]
        urls = (each["request"]["url"] for each in sent)
        return [url for url in urls if not url.startswith(("file:", "data:", "blob:"))]

    def errors(self) -> list[Any]:
        """What the page's script failed at, and what the page's policy forbade."""
        kinds = ("Runtime.exceptionThrown", "Log.entryAdded")
        found = [m["params"] for m in self.messages if m.get("method") in kinds]
        return [each for each in found if each.get("entry", {}).get("level") != "warning"]
