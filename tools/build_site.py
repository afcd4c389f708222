"""Builds the documentation as a site in .site/html: uv run python tools/build_site.py

The pages are the files of docs/ and a few that stand elsewhere in the repository. Their
links are relative to the place of each file, as a viewer of the repository reads them.
In the site they lead to the page that the file became, and a link that is named for a
file has the title of its page.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
ELSEWHERE = {
    "README.md": "index.md",
    "runtime/README.md": "library.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
LINK = re.compile(r"\[([^]]*)\]\((?![a-z]+:|#)([^)\s#]+)")
FENCE = re.compile(r"^( *```.*?^ *```$)", re.MULTILINE | re.DOTALL)


def pages(root: Path) -> dict[Path, Path]:
    """Each file of the site, with its place in it."""
    docs = root / "docs"
    inside = {
        path: path.relative_to(docs) for path in docs.rglob("*") if path.is_file()
    }
    return inside | {root / file: Path(place) for file, place in ELSEWHERE.items()}


def collect(root: Path, target: Path) -> None:
    """Lays the files out as the site has them."""
    shutil.rmtree(target, ignore_errors=True)
    places = pages(root)
    for file, place in places.items():
        (target / place).parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".md":
            (target / place).write_text(with_links(file, places))
        else:
            shutil.copy(file, target / place)


def with_links(file: Path, places: dict[Path, Path]) -> str:
    """The text of a page with its links as they are in the site."""

    def in_site(link: re.Match[str]) -> str:
        text, name = link.groups()
        target = Path(os.path.normpath(file.parent / name))
        if target not in places:
            sys.exit(f"{file}: {name} is not a file of the site")
        if text.endswith(".md"):
            text = target.read_text().partition("\n")[0].removeprefix("# ")
        place = os.path.relpath(places[target], places[file].parent)
        return f"[{text}]({Path(place).as_posix()}"

    parts = FENCE.split(file.read_text())
    # Every second part is a block of code.
    parts[::2] = [LINK.sub(in_site, part) for part in parts[::2]]
    return "".join(parts)


def build(root: Path) -> int:
    """Returns the exit status of the generator, which warnings make 1."""
    collect(root, root / ".site" / "pages")
    return subprocess.run(
        [Path(sys.executable).with_name("zensical"), "build", "--clean", "--strict"],
        cwd=root,
    ).returncode


if __name__ == "__main__":
    sys.exit(build(ROOT))
