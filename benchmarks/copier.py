"""What a copy and an update cost: beside a template of one file, and as backends grow.

    uv run python benchmarks/copier.py [--rounds N] [--plot FILE.svg]

Copies and updates of both templates take turns in one run; then one service is updated in
backends of 100, 1,000 and 10,000 files, by Copier and by `chancy-workers update`, and
backends of 1, 10 and 50 services by the latter. Figures are medians of the processor time
of all processes, in seconds, so that other work on the machine counts little.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY))

from tests.releases import WORKING_TREE, make_template, pack  # noqa: E402
from tests.support import PROGRAM, commit, run  # noqa: E402

COPIER = [sys.executable, "-m", "copier"]
BEFORE = "v0.2.0"
FILES = (100, 1000, 10_000)
SERVICES = (1, 10, 50)


def main() -> None:
    """Prints the figures, and draws how an update grows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        ours = make_template(scratch / "ours", without=())
        tiny = make_tiny_template(scratch / "tiny")
        compare(ours, tiny, scratch, arguments.rounds)
        lines = {
            "copier update, by files": grow_files(ours, scratch, by_copier),
            "chancy-workers update, by files": grow_files(ours, scratch, by_program),
            "chancy-workers update, by services": grow_services(ours, scratch),
        }
    for name, points in lines.items():
        told = ", ".join(f"{count:,}: {seconds:.1f}" for count, seconds in points)
        print(f"{name:36}{told}")
    if arguments.plot:
        arguments.plot.write_text(draw(lines))


def make_tiny_template(folder: Path) -> Path:
    """A template of one file and its answers, with two releases."""
    (folder / "template").mkdir(parents=True)
    (folder / "copier.yml").write_text(
        "_subdirectory: template\nname: {type: str, default: a}\n"
    )
    answers = folder / "template" / "{{ _copier_conf.answers_file }}.jinja"
    answers.write_text("{{ _copier_answers | to_nice_yaml }}")
    for version, text in ((BEFORE, "one\n"), (WORKING_TREE, "two\n")):
        (folder / "template" / "file.txt").write_text(text)
        commit(folder)
        run("git", "tag", version, cwd=folder)
    pack(folder)
    return folder


def cost(command: Sequence[str | Path], cwd: Path) -> float:
    """The processor time of a command and of what it starts, in seconds."""
    before = os.times()
    subprocess.run(
        [str(part) for part in command], cwd=cwd, check=True, capture_output=True
    )
    after = os.times()
    user = after.children_user - before.children_user
    return user + after.children_system - before.children_system


def compare(ours: Path, tiny: Path, scratch: Path, rounds: int) -> None:
    """Prints copies and updates of both templates, and their ratios."""
    costs: dict[tuple[str, Path], list[float]] = {}
    for number in range(rounds):
        for template in (ours, tiny):
            root = scratch / f"{template.name}-{number}"
            copied = copy_service(root, "billing", template)
            commit(root)
            updated = by_copier(root)
            shutil.rmtree(root)
            costs.setdefault(("copy", template), []).append(copied)
            costs.setdefault(("update", template), []).append(updated)
    for what in ("copy", "update"):
        mine, other = (statistics.median(costs[what, each]) for each in (ours, tiny))
        print(
            f"{what:8}{mine:6.2f} s, of one file {other:6.2f} s: {mine / other:.2f} times"
        )


def copy_service(root: Path, name: str, template: Path) -> float:
    (root / "app" / name).mkdir(parents=True)
    (root / "pyproject.toml").touch()
    command = [
        *COPIER,
        "copy",
        "--trust",
        "--defaults",
        "--quiet",
        f"--vcs-ref={BEFORE}",
    ]
    return cost([*command, template, f"app/{name}"], root)


def by_copier(root: Path) -> float:
    command = [*COPIER, "update", "--trust", "--defaults", "--quiet", "app/billing"]
    return cost(command, root)


def by_program(root: Path) -> float:
    return cost([PROGRAM, "update"], root)


def grow_files(
    template: Path, scratch: Path, update: Callable[[Path], float]
) -> list[tuple[int, float]]:
    """One service's update in backends of ever more files."""
    points = []
    for count in FILES:
        root = scratch / "files"
        copy_service(root, "billing", template)
        for number in range(count):
            path = root / "app" / "other" / f"{number // 100}" / f"{number}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"NUMBER = {number}\n" * 20)
        commit(root)
        points.append((count, update(root)))
        shutil.rmtree(root)
    return points


def grow_services(template: Path, scratch: Path) -> list[tuple[int, float]]:
    """The update of a backend with ever more services."""
    points = []
    for count in SERVICES:
        root = scratch / "services"
        for number in range(count):
            copy_service(root, f"service_{number}", template)
        commit(root)
        points.append((count, by_program(root)))
        shutil.rmtree(root)
    return points


def draw(lines: dict[str, list[tuple[int, float]]]) -> str:
    """A plot of all lines, each from 0 to its own largest count."""
    width, height, left, bottom = 640, 360, 60, 60
    top = max(seconds for points in lines.values() for _, seconds in points)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for number, (name, points) in enumerate(lines.items()):
        colour = ("#b33", "#36b", "#393")[number]
        largest = points[-1][0]
        places = [
            (
                left + (width - 2 * left) * count / largest,
                height - bottom - (height - 2 * bottom) * seconds / top,
            )
            for count, seconds in points
        ]
        path = " ".join(f"{x:.0f},{y:.0f}" for x, y in places)
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
        )
        parts += [
            f'<text x="{x + 4:.0f}" y="{y - 6:.0f}" fill="{colour}">{seconds:.1f} s</text>'
            for (x, y), (_, seconds) in zip(places, points, strict=True)
        ]
        counts = ", ".join(f"{count:,}" for count, _ in points)
        parts.append(
            f'<text x="{left}" y="{20 + 16 * number}" fill="{colour}">{name}: {counts}</text>'
        )
    axis = f"M{left},{bottom} V{height - bottom} H{width - left}"
    parts.append(f'<path d="{axis}" fill="none" stroke="black"/>')
    return "\n".join([*parts, "</svg>\n"])


if __name__ == "__main__":
    main()
