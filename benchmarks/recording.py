"""Records all commands from an empty folder to a job that ran, as docs/terminal.svg:

    uv run --with pyte python benchmarks/recording.py

It types into a real shell, in a scratch backend with a real PostgreSQL. The template is
this repository's HEAD, at the URL that the pages use. In the picture, each line appears at
the time when it was printed, with pauses of at most a second. Without animations all lines
are visible.
"""

import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from xml.sax.saxutils import escape

import pyte
from chancy_runtime.embedded import EmbeddedServer

ROOT = Path(__file__).parents[1]
FILE = ROOT / "docs" / "terminal.svg"
URL = "https://git.example.com/platform/chancy-workers"
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
PROMPT = r"\[\e[32m\]$\[\e[0;1m\] "
COMMANDS = [
    f"uvx copier copy -q --defaults --trust git+{URL} app/billing",
    "ls app/billing app/billing/workers",
    f'uv add -q --tag v{VERSION} "chancy-runtime[fastapi,sentry] @ '
    f'git+{URL}#subdirectory=runtime"',
    'uv add -q "psycopg[binary]>=3.3.6" "uvicorn>=0.30"',
    "uv run python -m app.billing.workers migrate",
    "uv run uvicorn app.billing.main:app > service.log 2>&1 &",
    "curl -s --retry 9 --retry-connrefused -d '' localhost:8000/jobs/send_digest; echo",
    "kill %1; wait",
    "grep -e send_digest -e complete service.log",
]
COLUMNS, ROWS = 84, 60
WIDTH, HEIGHT, PADDING = 8.4, 19, 16
COLOURS = {"default": "#d6deeb", "green": "#22c55e", "red": "#f87171"} | {
    "brown": "#facc15",
    "blue": "#60a5fa",
    "magenta": "#e879f9",
    "cyan": "#22d3ee",
}


class Terminal:
    """A shell, its screen, and the time of the last change of each line."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.screen = pyte.Screen(COLUMNS, ROWS)
        self.came = [0.0] * ROWS
        self._stream = pyte.ByteStream(self.screen)
        self._began = time.monotonic()
        self._ours, theirs = pty.openpty()
        size = ["stty", "rows", str(ROWS), "columns", str(COLUMNS)]
        subprocess.run(size, stdin=theirs, check=True)
        self._shell = subprocess.Popen(
            ["bash", "--noprofile", "--norc", "-i"],
            cwd=folder,
            env=environment | {"PS1": PROMPT, "PS0": r"\e[0m", "TERM": "xterm"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def wait(self, timeout: float = 120) -> None:
        """Waits for the prompt."""
        deadline = time.monotonic() + timeout
        while self._read() or not self._prompts():
            if time.monotonic() > deadline:
                shown = "\n".join(self.screen.display).rstrip()
                raise TimeoutError(f"the last command did not end in time:\n{shown}")

    def _prompts(self) -> bool:
        line = self.screen.display[self.screen.cursor.y]
        return line.rstrip() == "$"

    def _read(self) -> bool:
        """Reads the output of at most half a second; returns whether there was any."""
        if not select.select([self._ours], [], [], 0.5)[0]:
            return False
        before = list(self.screen.display)
        self._stream.feed(os.read(self._ours, 65536))
        now = time.monotonic() - self._began
        for row, text in enumerate(self.screen.display):
            if text != before[row]:
                self.came[row] = now
        return True

    def end(self) -> None:
        self._shell.send_signal(signal.SIGHUP)  # The shell ends its jobs too.
        self._shell.wait()
        os.close(self._ours)


@contextmanager
def backend() -> Iterator[tuple[Path, dict[str, str]]]:
    """Yields a repository without workers, and the environment for its commands."""
    scratch = Path("/tmp/recording")  # The picture shows this path.
    scratch.mkdir()
    try:
        template, folder = scratch / "template", scratch / "backend"
        run("git", "clone", "--quiet", ROOT, template, cwd=scratch)
        run("git", "tag", "--force", f"v{VERSION}", cwd=template)
        run("uv", "init", "--quiet", "--bare", folder, cwd=scratch)
        run("git", "init", "--quiet", cwd=folder)
        run("uv", "add", "--quiet", "fastapi", cwd=folder)
        (folder / "app").mkdir()
        (folder / "app" / "__init__.py").touch()
        (scratch / "gitconfig").write_text(
            f'[url "file://{template}"]\n  insteadOf = {URL}\n'
        )
        (scratch / "postgresql").mkdir()
        server = EmbeddedServer(scratch / "postgresql")
        environment = {
            "GIT_CONFIG_GLOBAL": str(scratch / "gitconfig"),
            "WORKERS_DATABASE_URL": server.url,
        }
        inherited = {k: v for k, v in os.environ.items() if k != "VIRTUAL_ENV"}
        try:
            yield folder, inherited | environment
        finally:
            server.stop()
    finally:
        shutil.rmtree(scratch)


def run(*command: str | Path, cwd: Path) -> None:
    subprocess.run(command, cwd=cwd, check=True)


def drawn(screen: pyte.Screen, came: list[float]) -> str:
    """Returns the screen as an SVG whose lines appear one after the other."""
    last = screen.cursor.y  # The last line is an empty prompt.
    rows, latest, at = [], 0.0, 0.5
    for row in range(last):
        at += min(max(came[row] - latest, 0), 1)
        latest = max(came[row], latest)
        y = PADDING + HEIGHT * row + 14
        cells = [screen.buffer[row][column] for column in range(COLUMNS)]
        rows.append(f'<g style="animation-delay:{at:.2f}s">{line(cells, y)}</g>')
    width = COLUMNS * WIDTH + 2 * PADDING
    height = HEIGHT * last + 2 * PADDING
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height}" '
        f'width="{width:g}" height="{height}" role="img">\n'
        "<title>From an empty folder to a job that ran</title>\n"
        "<style>text{font:14px ui-monospace,SFMono-Regular,Menlo,Consolas,"
        "'DejaVu Sans Mono',monospace;white-space:pre}"
        "@keyframes come{from{opacity:0}to{opacity:1}}"
        "@media (prefers-reduced-motion:no-preference){"
        "g{animation:come 1ms both}}</style>\n"
        f'<rect width="100%" height="100%" rx="8" fill="#0b1220"/>\n'
        + "\n".join(rows)
        + "\n</svg>\n"
    )


def line(cells: list[pyte.screens.Char], y: float) -> str:
    """Returns a line as texts of one colour each, equally wide in every font."""
    texts, column = [], 0
    for (colour, bold), group in groupby(cells, lambda cell: (cell.fg, cell.bold)):
        text = "".join(cell.data for cell in group)
        if text.strip():
            x = PADDING + column * WIDTH
            weight = ' font-weight="bold"' if bold else ""
            texts.append(
                f'<text x="{x:g}" y="{y:g}" textLength="{len(text) * WIDTH:g}" '
                f'fill="{COLOURS.get(colour, COLOURS["default"])}"{weight}>'
                f"{escape(text)}</text>"
            )
        column += len(text)
    return "".join(texts)


def main() -> None:
    with backend() as (folder, environment):
        terminal = Terminal(folder, environment)
        try:
            terminal.wait()
            for command in COMMANDS:
                terminal.type(f"{command}\n")
                terminal.wait()
        finally:
            terminal.end()
        FILE.write_text(drawn(terminal.screen, terminal.came))
        print("\n".join(terminal.screen.display).rstrip(), file=sys.stderr)


if __name__ == "__main__":
    main()
