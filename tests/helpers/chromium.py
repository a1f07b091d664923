"""A headless Chromium that tests drive through a pipe, without a further package.

The protocol is Chromium's DevTools protocol: JSON messages that end with a zero byte.
"""

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
LOUD = ("error", "warning")
WAIT = 60.0
"""Seconds until an answer must be there."""


def browser_path() -> str | None:
    """Return the browser's program, or ``None`` where there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One browser with one page."""

    def __init__(self, send: int, receive: int) -> None:
        self._send, self._receive = send, receive
        self._number, self._buffer = 0, b""
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", {"url": "about:blank"})["targetId"]
        attach = {"targetId": target, "flatten": True}
        self._session: str | None = None
        self._session = self.call("Target.attachToTarget", attach)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        """Call a method of the protocol; return its result."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params or {}}
        if getattr(self, "_session", None):
            message["sessionId"] = self._session
        os.write(self._send, json.dumps(message).encode() + b"\0")
        while True:
            found = self._message()
            if found.get("id") == self._number:
                assert "error" not in found, (method, found["error"])
                return found["result"]
            self.events.append(found)

    def _message(self) -> dict[str, Any]:
        end = time.monotonic() + WAIT
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._receive], [], [], max(0, end - time.monotonic()))
            assert ready, "the browser does not answer"
            self._buffer += os.read(self._receive, 1 << 20)
        text, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(text)

    def open(self, page: Path, *, width: int = 1280, dark: bool = False) -> float:
        """Open a page at a width; return the seconds until it is drawn."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        self.call("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", {"media": "", "features": [scheme]})
        self.events.clear()
        begin = time.monotonic()
        self.call("Page.navigate", {"url": page.resolve().as_uri()})
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._message())
        drawn = "new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))"
        self.run(drawn)
        return time.monotonic() - begin

    def run(self, expression: str) -> Any:
        """Return the value of an expression of JavaScript in the page."""
        asked = {"expression": expression, "returnByValue": True, "awaitPromise": True}
        found = self.call("Runtime.evaluate", asked)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def problems(self) -> list[str]:
        """Return what the console reported, and every request for anything but the page."""
        said = []
        for event in self.events:
            method, params = event.get("method"), event.get("params", {})
            console = method == "Runtime.consoleAPICalled" and params["type"] in LOUD
            if console or method in ("Runtime.exceptionThrown", "Log.entryAdded"):
                said.append(json.dumps(params))
            elif method == "Network.requestWillBeSent":
                url = params["request"]["url"]
                said += [] if url.endswith(".html") and url.startswith("file:") else [url]
        return said

    def press(self, key: str) -> None:
        """Press and release a key."""
        code = {"Tab": 9, "Enter": 13}[key]
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            event = {"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code}
            self.call("Input.dispatchKeyEvent", event | (text if kind == "keyDown" else {}))

    def picture(self, path: Path, *, whole: bool = True) -> None:
        """Write a screenshot of the whole page."""
        how = {"format": "png", "captureBeyondViewport": whole}
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", how)["data"]))

    def paper(self, path: Path) -> None:
        """Print the page on A4."""
        size = {"paperWidth": 8.27, "paperHeight": 11.69, "preferCSSPageSize": True}
        path.write_bytes(base64.b64decode(self.call("Page.printToPDF", size)["data"]))


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """Start a browser; it ends with the block.

    Args:
        folder: for its profile.
    """
    program = browser_path()
    assert program is not None
    to_read, to_write = os.pipe(), os.pipe()

    def place() -> None:  # the browser reads commands from 3 and answers on 4
        high = os.dup(to_read[0]), os.dup(to_write[1])
        os.dup2(high[0], 3)
        os.dup2(high[1], 4)

    options = ["--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu"]
    options += ["--disable-dev-shm-usage", "--no-first-run", f"--user-data-dir={folder}"]
    with subprocess.Popen(
        [program, *options, "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(3, 4),
        preexec_fn=place,  # noqa: PLW1509
    ) as process:
        os.close(to_read[0])
        os.close(to_write[1])
        try:
            yield Browser(to_read[1], to_write[0])
        finally:
            process.kill()
            os.close(to_read[1])
            os.close(to_write[0])
