"""A real browser, spoken to by its debugging protocol: what a person would see and do.

The client of the protocol is tornado's, which comes with distributed.
"""

import asyncio
import base64
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from tornado.websocket import websocket_connect

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
    *("--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking"),
    "--remote-debugging-port=0",
)
DOMAINS = ("Page", "Runtime", "Log", "Network")


def find_browser() -> str | None:
    """Return the path of a browser of this machine, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Tab:
    """One page; `events` are what the browser told of it so far."""

    def __init__(self, socket: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._socket, self._loop = socket, loop
        self._n = 0
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Return the browser's answer."""
        self._n += 1
        message = json.dumps({"id": self._n, "method": method, "params": params})
        self._loop.run_until_complete(self._send(message))
        while True:
            told = json.loads(self._wait())
            if told.get("id") == self._n:
                assert "error" not in told, told
                return told["result"]
            self.events.append(told)

    def close(self) -> None:
        """End the conversation; tornado wants a loop that runs for it."""
        self._loop.run_until_complete(self._end())

    async def _end(self) -> None:
        self._socket.close()

    async def _send(self, message: str) -> None:
        await self._socket.write_message(message)

    def _wait(self) -> str:
        return self._loop.run_until_complete(self._read())

    async def _read(self) -> str:
        return await asyncio.wait_for(self._socket.read_message(), 60)

    def open(self, page: Path) -> Self:
        """Open a page, and wait until it is loaded."""
        self.call("Page.navigate", url=page.as_uri())
        while not any(e.get("method") == "Page.loadEventFired" for e in self.events):
            self.events.append(json.loads(self._wait()))
        return self

    def run(self, script: str) -> Any:
        """Return the value of a script's last expression."""
        told = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def resize(self, width: int, height: int) -> None:
        """Set the size of the window."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def drag(self, start: tuple[float, float], stop: tuple[float, float]) -> None:
        """Press the mouse at one place, and let it go at another."""
        places = (
            ("mousePressed", start),
            ("mouseMoved", stop),
            ("mouseReleased", stop),
        )
        for kind, (x, y) in places:
            button = {"button": "left", "buttons": 1, "clickCount": 1}
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **button)

    def picture(self, path: Path) -> None:
        """Save what is seen as a PNG."""
        told = self.call("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(told["data"]))

    def complaints(self) -> list[Any]:
        """Return what the browser complained of: errors, and broken rights."""
        kinds = ("Log.entryAdded", "Runtime.exceptionThrown")
        return [one for one in self.events if one.get("method") in kinds]

    def requests(self) -> set[str]:
        """Return the kinds of URLs that the page asked for."""
        return {
            one["params"]["request"]["url"].partition(":")[0]
            for one in self.events
            if one.get("method") == "Network.requestWillBeSent"
        }


@contextmanager
def browse(browser: str, folder: Path) -> Iterator[Tab]:
    """Start a browser, and stop it at the end."""
    command = [browser, *FLAGS, f"--user-data-dir={folder}", "about:blank"]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    loop = asyncio.new_event_loop()
    try:
        port = _port(folder / "DevToolsActivePort", process)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json") as told:
            [page] = [one for one in json.load(told) if one["type"] == "page"]
        tab = Tab(loop.run_until_complete(_connect(page)), loop)
        for domain in DOMAINS:
            tab.call(f"{domain}.enable")
        yield tab
        tab.close()
    finally:
        process.terminate()
        process.wait(30)
        loop.close()


async def _connect(page: dict[str, Any]) -> Any:
    url = page["webSocketDebuggerUrl"]
    return await websocket_connect(url, max_message_size=1 << 30)


def _port(path: Path, process: subprocess.Popen[bytes]) -> str:
    for _ in range(600):
        if path.exists() and (text := path.read_text()).count("\n"):
            return text.split("\n")[0]
        assert process.poll() is None, "the browser ended"
        time.sleep(0.1)
    raise AssertionError("the browser did not start")
