"""A headless Chromium, driven over its DevTools protocol: what a page looks like to a reader, and what it asks for."""

import asyncio
import base64
import itertools
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_WAIT = 60.0  # s, for anything the browser has to say

# Run in the page once its audio has loaded or failed: everything that a reader would miss.
_LOOK = """
(async () => {
  const media = [...document.querySelectorAll("audio")];
  const known = (a) => a.error || a.readyState >= 1;
  for (let tries = 0; tries < 200 && !media.every(known); tries++) await new Promise(done => setTimeout(done, 50));
  const scrolling = document.scrollingElement;
  const wide = [...document.querySelectorAll("body *")]
    .filter(e => !e.closest(".wide, svg, nav") && e.getBoundingClientRect().right > innerWidth + 0.5);
  const behind = e => {
    for (; e; e = e.parentElement) {
      const colour = getComputedStyle(e).backgroundColor;
      if (colour !== "rgba(0, 0, 0, 0)") return colour;
    }
    return "none";
  };
  const said = [...document.querySelectorAll("body *:not(.drawn *)")]
    .filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) && e.tagName !== "SCRIPT");
  const ink = e => e.tagName === "text" ? getComputedStyle(e).fill : getComputedStyle(e).color;
  return {
    inner: innerWidth, scroll: scrolling.scrollWidth, background: behind(document.body),
    colours: [...new Set(said.map(e => `${ink(e)} on ${behind(e)}`))],
    sticking_out: wide.map(e => e.tagName + "." + e.className),
    images: [...document.images].map(i => [i.complete && i.naturalWidth > 0, i.alt]),
    drawings: [...document.querySelectorAll("svg[role=img]")]
      .map(s => [s.getBoundingClientRect().height > 50, s.getAttribute("aria-label")]),
    sounds: media.map(a => [a.error === null && a.duration > 0, a.getAttribute("aria-label")]),
    tables: [...document.querySelectorAll("table")].map(t => t.caption && t.caption.innerText),
    text_of: document.body.innerText,
  };
})()
"""


@dataclass
class Seen:
    """What the browser found: the page's own account, complaints in the console, and URLs that it went to."""

    page: dict[str, Any]
    complaints: list[str]
    requests: list[str]
    screenshot: bytes


def find() -> str | None:
    """The browser's program, if there is one."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


def look(program: str, page: Path, width: int, scheme: str, height: int = 900) -> Seen:
    """Open a local page at this width and colour scheme (light, dark)."""
    with _started(program) as address:
        return asyncio.run(_look(address, page.as_uri(), width, scheme, height))


@contextmanager
def _started(program: str) -> Iterator[str]:
    """A browser of its own with an empty profile; its DevTools address."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
        options += [f"--user-data-dir={profile}", "--remote-debugging-port=0", "--hide-scrollbars", "about:blank"]
        browser = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield f"127.0.0.1:{_port(browser, Path(profile) / 'DevToolsActivePort')}"
        finally:
            browser.terminate()
            browser.wait()


def _port(browser: subprocess.Popen[bytes], told: Path) -> int:
    """Where it listens, which it writes into its profile."""
    deadline = time.monotonic() + _WAIT
    while time.monotonic() < deadline and browser.poll() is None:
        lines = told.read_text().splitlines() if told.exists() else []
        if lines:
            return int(lines[0])
        time.sleep(0.05)
    raise RuntimeError(f"{browser.args} did not start: exit code {browser.poll()}")


@dataclass
class _Tab:
    """One page over one socket: commands are answered by number, events are kept."""

    socket: aiohttp.ClientWebSocketResponse
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    events: list[dict[str, Any]] = field(default_factory=list)

    async def __call__(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self.numbers)
        await self.socket.send_json({"id": number, "method": method, "params": parameters})
        while True:
            message = await self.socket.receive_json(timeout=_WAIT)
            if message.get("id") == number:
                assert "error" not in message, message
                return dict(message["result"])
            self.events.append(message)

    async def until(self, event: str) -> None:
        while not any(message["method"] == event for message in self.events):
            self.events.append(await self.socket.receive_json(timeout=_WAIT))


@asynccontextmanager
async def _tab(address: str) -> Any:
    async with aiohttp.ClientSession() as session:
        async with session.get(f"http://{address}/json/list") as answer:
            target = next(entry for entry in await answer.json() if entry["type"] == "page")
        async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
            yield _Tab(socket)


async def _look(address: str, url: str, width: int, scheme: str, height: int) -> Seen:
    async with _tab(address) as tab:
        for domain in ("Page", "Network", "Runtime", "Log"):
            await tab(f"{domain}.enable")
        is_phone = width < 600
        await tab(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=is_phone
        )
        await tab("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        await tab("Page.navigate", url=url)
        await tab.until("Page.loadEventFired")
        found = await tab("Runtime.evaluate", expression=_LOOK, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found
        shot = await tab("Page.captureScreenshot", captureBeyondViewport=True, clip=await _whole(tab, width))
        complaints = [str(event["params"]) for event in tab.events if event["method"] in _COMPLAINTS]
        asked = [e["params"]["request"]["url"] for e in tab.events if e["method"] == "Network.requestWillBeSent"]
        return Seen(found["result"]["value"], complaints, asked, base64.b64decode(shot["data"]))


_COMPLAINTS = ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown")


async def _whole(tab: _Tab, width: int) -> dict[str, float]:
    metrics = await tab("Page.getLayoutMetrics")
    return {"x": 0, "y": 0, "width": width, "height": metrics["cssContentSize"]["height"], "scale": 1}
