"""The pages are built as a site without broken links that fetches nothing from other hosts."""

import functools
import re
import shutil
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from .browsers import TIMEOUT, chromium
from .support import TEMPLATE

SOURCES = ["docs", "runtime/README.md", "README.md", "CONTRIBUTING.md", "CHANGELOG.md"]
# The elements that a browser fetches for a page, and the links that a reader follows.
FETCHED = {"script": "src", "img": "src", "link": "href", "iframe": "src"}
FOLLOWED = {"a": "href"}
STYLE = re.compile(r"""url\(["']?(?!data:|#)([^"')]+)""")


class Page(HTMLParser):
    """The ids and the links of a page."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.fetched: list[str] = []
        self.followed: list[str] = []
        self.feed(file.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.ids.add(named.get("id") or "")
        for names, found in ((FETCHED, self.fetched), (FOLLOWED, self.followed)):
            if link := named.get(names.get(tag, "")):
                found.append(link)


def build(root: Path) -> "subprocess.CompletedProcess[str]":
    """Builds the site from a copy of the pages."""
    for name in [*SOURCES, "zensical.toml", "tools/build_site.py"]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (TEMPLATE / name).is_dir() else shutil.copy
        if not (root / name).exists():
            copy(TEMPLATE / name, root / name)
    return subprocess.run(
        [sys.executable, "tools/build_site.py"],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("site")
    result = build(root)
    assert result.returncode == 0, result.stdout + result.stderr
    return root / ".site" / "html"


def in_navigation(entry: Any) -> Iterator[str]:
    """The pages in the navigation, in its order."""
    if isinstance(entry, str):
        yield entry
    else:
        for each in entry.values() if isinstance(entry, dict) else entry:
            yield from in_navigation(each)


def test_each_link_leads_to_an_existing_place_of_the_site(site: Path) -> None:
    pages = {file: Page(file) for file in site.rglob("*.html")}
    assert len(pages) > 20
    broken = []
    for file, page in pages.items():
        for link in page.followed + page.fetched:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or file.name == "404.html":
                continue
            target = (file.parent / unquote(parts.path)).resolve()
            if target.is_dir() or not parts.path:
                target = target / "index.html" if parts.path else file
            anchor = unquote(parts.fragment)
            if not target.is_file() or (anchor and anchor not in pages[target].ids):
                broken.append(f"{file.relative_to(site)}: {link}")
    assert broken == []


def test_a_browser_fetches_nothing_from_other_hosts(site: Path) -> None:
    fetched = [link for file in site.rglob("*.html") for link in Page(file).fetched]
    styles = [STYLE.findall(file.read_text()) for file in site.rglob("*.css")]
    styles += [STYLE.findall(file.read_text()) for file in site.rglob("*.svg")]

    elsewhere = [link for link in [*fetched, *sum(styles, [])] if urlsplit(link).netloc]
    assert elsewhere == []


def test_the_pages_fit_a_phone_s_screen(site: Path) -> None:
    """No page is wider than the screen, and scripts fetch nothing from other hosts."""
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(site))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/"
        with chromium() as browser:
            page = browser.new_page(viewport={"width": 390, "height": 844})
            fetched: list[str] = []
            page.on("request", lambda request: fetched.append(request.url))
            wide = []
            # Pages with the picture, code, long words in tables, and many columns.
            for place in ("", "wiring/", "questions/", "scaling/"):
                page.goto(address + place, timeout=TIMEOUT)
                page.evaluate("scrollTo(500, 0)")
                if page.evaluate("scrollX"):
                    wide.append(place)
        server.shutdown()

    assert wide == []
    own = (address, "data:", "blob:")
    assert [url for url in fetched if not url.startswith(own)] == []


def test_each_page_has_one_place_in_the_navigation(site: Path) -> None:
    """The generator takes a name without a page for an address, without a message."""
    project = tomllib.loads((TEMPLATE / "zensical.toml").read_text())["project"]
    pages = site.with_name("pages")

    assert sorted(in_navigation(project["nav"])) == sorted(
        file.relative_to(pages).as_posix() for file in pages.rglob("*.md")
    )


@pytest.mark.parametrize(
    ("link", "message"),
    [
        ("[a](gone.md)", "gone.md is not a file of the site"),
        ("[a](jobs.md#gone)", "anchor does not exist"),
    ],
)
def test_a_broken_link_stops_the_build(tmp_path: Path, link: str, message: str) -> None:
    shutil.copytree(TEMPLATE / "docs", tmp_path / "docs")
    with (tmp_path / "docs" / "trust.md").open("a") as page:
        page.write(f"\n{link}\n")

    result = build(tmp_path)

    assert result.returncode == 1
    assert message in result.stdout + result.stderr
