"""Measures what a copy and an update cost, beside plain templates and as backends grow.

    TMPDIR=/dev/shm uv run --with matplotlib python benchmarks/copier.py [--rounds N] [--plot FILE.svg]

TMPDIR must be a file system in memory: ext4 searches long for free inodes where many were
just deleted, which does not happen in a person's single update.

Copies and updates of three templates take turns in one run: this one, one with a single
file, and one with as many files as this one renders. The other two hold plain text, without
checks or programs. Each is updated to a release that changes one line.

Then one service is updated in backends of 100, 1,000 and 10,000 files, by Copier and by
`chancy-workers update`. After that, `chancy-workers update` updates every service of backends
with 1, 10 and 50 services, once. Figures are the processor time of all processes, in seconds,
so that other work on the machine matters little; they are medians of the rounds.
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
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "runtime/tests")]

from tests.releases import NEXT, WORKING_TREE, make_next_release, pack  # noqa: E402
from tests.support import PROGRAM, commit, run  # noqa: E402

COPIER = [sys.executable, "-m", "copier"]
OURS, ONE_FILE, AS_MANY = "this template", "one file", "as many plain files"
FILES = (100, 1000, 10_000)
SERVICES = (1, 10, 50)
Points = list[tuple[int, float]]


def main() -> None:
    """Prints the figures, and draws how an update grows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        ours = make_next_release(scratch / "ours", without=())
        compare(ours, scratch, arguments.rounds)
        by_files = {
            "copier update": grow_files(ours, scratch, by_copier, arguments.rounds),
            "chancy-workers update": grow_files(
                ours, scratch, by_program, arguments.rounds
            ),
        }
        by_services = {"chancy-workers update": grow_services(ours, scratch)}
    for what, lines in (("files", by_files), ("services", by_services)):
        for name, points in lines.items():
            row = ", ".join(f"{count:,}: {seconds:.1f} s" for count, seconds in points)
            print(f"{name:23}by {what:10}{row}")
    if arguments.plot:
        draw(arguments.plot, by_files, by_services)


def compare(ours: Path, scratch: Path, rounds: int) -> None:
    """Prints the costs of the three templates, and the ratios of ours to the others."""
    rendered = scratch / "rendered"
    copy_service(rendered, "billing", ours)
    files = sorted((rendered / "app" / "billing").rglob("*.py"))
    templates = {
        OURS: ours,
        ONE_FILE: make_plain_template(scratch / "one", files[:1]),
        AS_MANY: make_plain_template(scratch / "many", files),
    }
    shutil.rmtree(rendered)
    costs: dict[tuple[str, str], list[float]] = {}
    for number in range(rounds):
        for name, template in templates.items():
            root = scratch / f"{template.name}-{number}"
            costs.setdefault(("copy", name), []).append(
                copy_service(root, "billing", template)
            )
            commit(root)
            costs.setdefault(("update", name), []).append(by_copier(root))
            shutil.rmtree(root)
    for what in ("copy", "update"):
        medians = {name: statistics.median(costs[what, name]) for name in templates}
        row = ", ".join(f"{name} {medians[name]:.2f} s" for name in templates)
        ratios = ", ".join(
            f"{medians[OURS] / medians[name]:.2f} of {name}"
            for name in (ONE_FILE, AS_MANY)
        )
        print(f"{what:8}{row}: {ratios}")


def make_plain_template(folder: Path, files: Sequence[Path]) -> Path:
    """Makes a template of these files and an answers file, with two releases."""
    rendered = folder / "template"
    rendered.mkdir(parents=True)
    (folder / "copier.yml").write_text(
        "_subdirectory: template\nname: {type: str, default: a}\n"
    )
    answers = rendered / "{{ _copier_conf.answers_file }}.jinja"
    answers.write_text("{{ _copier_answers | to_nice_yaml }}")
    for number, file in enumerate(files):
        target = rendered / "workers" / f"{number}.py"
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(file, target)
    for version in (WORKING_TREE, NEXT):
        with (rendered / "workers" / "0.py").open("a") as stream:
            stream.write(f"# {version}\n")
        commit(folder)
        run("git", "tag", version, cwd=folder)
    pack(folder)
    return folder


def cost(command: Sequence[str | Path], cwd: Path) -> float:
    """Returns the processor time of a command and of its children, in seconds."""
    before = os.times()
    subprocess.run(
        [str(part) for part in command], cwd=cwd, check=True, capture_output=True
    )
    after = os.times()
    user = after.children_user - before.children_user
    return user + after.children_system - before.children_system


def copy_service(root: Path, name: str, template: Path) -> float:
    """Copies the working tree's release; returns the cost."""
    (root / "app" / name).mkdir(parents=True)
    (root / "pyproject.toml").touch()
    command = [
        *COPIER,
        "copy",
        "--trust",
        "--defaults",
        "--quiet",
        f"--vcs-ref={WORKING_TREE}",
    ]
    return cost([*command, template, f"app/{name}"], root)


def by_copier(root: Path) -> float:
    command = [*COPIER, "update", "--trust", "--defaults", "--quiet", "app/billing"]
    return cost(command, root)


def by_program(root: Path) -> float:
    return cost([PROGRAM, "update"], root)


def grow_files(
    template: Path, scratch: Path, update: Callable[[Path], float], rounds: int
) -> Points:
    """Measures the update of one service in backends with more and more files."""
    points = []
    for count in FILES:
        root = scratch / "files"
        copy_service(root, "billing", template)
        for number in range(count):
            path = root / "app" / "other" / f"{number // 100}" / f"{number}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"NUMBER = {number}\n" * 20)
        points.append((count, measure(root, update, rounds)))
    return points


def grow_services(template: Path, scratch: Path) -> Points:
    """Measures the update of every service in backends with more and more services."""
    points = []
    for count in SERVICES:
        root = scratch / "services"
        for number in range(count):
            copy_service(root, f"service_{number}", template)
        points.append((count, measure(root, by_program, 1)))
    return points


def measure(root: Path, update: Callable[[Path], float], rounds: int) -> float:
    """Commits a backend, updates it `rounds` times from that commit, and deletes it."""
    commit(root)
    costs = []
    for _ in range(rounds):
        costs.append(update(root))
        run("git", "reset", "--hard", "--quiet", cwd=root)
    shutil.rmtree(root)
    return statistics.median(costs)


def draw(
    file: Path, by_files: dict[str, Points], by_services: dict[str, Points]
) -> None:
    """Draws the two plots side by side."""
    import matplotlib
    from matplotlib import pyplot

    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "update"})
    colours = {"copier update": "tab:orange", "chancy-workers update": "tab:blue"}
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    for axis, title, what, scale, lines in (
        (axes[0], "One service", "files", "log", by_files),
        (axes[1], "Every service", "services", "linear", by_services),
    ):
        for name, points in lines.items():
            axis.plot(
                *zip(*points, strict=True), marker="o", label=name, color=colours[name]
            )
        axis.set(title=title, xlabel=f"{what} in the backend", xscale=scale)
        axis.set_xticks([count for count, _ in points], [f"{c:,}" for c, _ in points])
        axis.minorticks_off()
        axis.set_ylim(0, 1.25 * max(y for line in lines.values() for _, y in line))
        axis.grid(alpha=0.3)
        axis.legend(frameon=False, loc="lower right")
    axes[0].set_ylabel("seconds of processor time")
    figure.savefig(file, metadata={"Date": None})


if __name__ == "__main__":
    main()
