"""A headless Chromium driven through its DevTools pipe: JSON messages that end in NUL, on file descriptors 3 and 4."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--remote-debugging-pipe", "--window-size=1366,900"),
)
_PATIENCE_S = 60.0


def find_browser() -> str | None:
    """The first Chromium on PATH."""
    return next((path for name in PROGRAMS if (path := shutil.which(name))), None)


class Page:
    """A page that is loaded when the ``with`` block begins; what it asks for and complains of is kept.

    Args:
        program: as ``find_browser`` gives it.
        page: a file, or the address of a page.
        profile: an empty folder for the browser.
        flags: of the browser, over those that it always has.
    """

    def __init__(self, program: str, page: Path | str, profile: Path, flags: Sequence[str] = ()) -> None:
        self.requests: list[str] = []
        self.errors: list[str] = []
        self._address = page if isinstance(page, str) else page.as_uri()
        self._number, self._session, self._buffer, self._loaded = 0, None, b"", False
        child_in, self._out = os.pipe()
        self._in, child_out = os.pipe()
        os.set_blocking(self._in, False)
        command = [program, *_FLAGS, *flags, f"--user-data-dir={profile}"]
        shell = ["bash", "-c", 'i=$1 o=$2; shift 2; exec "$@" 3<&$i 4>&$o', "bash"]
        self._process = subprocess.Popen(
            [*shell, str(child_in), str(child_out), *command],
            pass_fds=(child_in, child_out),
            stderr=subprocess.DEVNULL,
        )
        os.close(child_in)
        os.close(child_out)

    def __enter__(self) -> Page:
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")
        self._call("Page.navigate", url=self._address)
        while not self._loaded:
            self._handle(self._receive())
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(timeout=_PATIENCE_S)
        os.close(self._in)
        os.close(self._out)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, or of what it promises, as JSON carries it."""
        answer = self._call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise AssertionError(answer["exceptionDetails"]["exception"].get("description"))
        return answer["result"].get("value")

    def click(self, selector: str) -> None:
        """Presses the left button in the middle of the first element that fits, scrolled to."""
        self.evaluate(f"document.querySelector({json.dumps(selector)}).scrollIntoView({{block: 'center'}})")
        x, y = self._middle(selector)
        for kind in ("mousePressed", "mouseReleased"):
            self._call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def drag(self, selector: str, dx: float, dy: float, steps: int, pause_s: float) -> None:
        """Moves the left button, held, from the middle of the first element that fits, so many pixels in all."""
        x, y = self._middle(selector)
        for step in range(steps + 2):
            kind = "mousePressed" if step == 0 else "mouseReleased" if step > steps else "mouseMoved"
            share = min(step, steps) / steps
            place = {"x": x + share * dx, "y": y + share * dy}
            self._call("Input.dispatchMouseEvent", type=kind, **place, button="left", buttons=1, clickCount=1)
            time.sleep(pause_s)

    def press(self, key: str) -> None:
        """Presses a key that has the focus's attention, such as ArrowRight."""
        code = {"ArrowRight": 39, "ArrowLeft": 37}[key]
        for kind in ("rawKeyDown", "keyUp"):
            self._call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def resize(self, width: int, height: int) -> None:
        """Gives the window's inside this size, pixels."""
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def prefer(self, scheme: str) -> None:
        """``light`` or ``dark``, as a system's setting would."""
        self._call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def _middle(self, selector: str) -> list[float]:
        """Where in the window the first element that fits is, in pixels."""
        found = f"document.querySelector({json.dumps(selector)}).getBoundingClientRect()"
        return self.evaluate(f"(({{x, y, width, height}}) => [x + width / 2, y + height / 2])({found})")

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]
            self._handle(answer)

    def _receive(self) -> dict[str, Any]:
        end = time.monotonic() + _PATIENCE_S
        while b"\0" not in self._buffer:
            try:
                data = os.read(self._in, 1 << 16)
            except BlockingIOError:
                assert time.monotonic() < end, "the browser does not answer"
                time.sleep(0.01)
                continue
            assert data, "the browser has ended"
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def _handle(self, event: dict[str, Any]) -> None:
        method, said = event.get("method"), event.get("params", {})
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Network.requestWillBeSent":
            self.requests.append(said["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.errors.append(str(said["exceptionDetails"]))
        elif method == "Log.entryAdded" or (
            method == "Runtime.consoleAPICalled" and said["type"] in ("error", "warning")
        ):
            self.errors.append(str(said))
