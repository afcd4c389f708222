"""The place of an import and its form, in the style of the file."""

from __future__ import annotations

import ast
import os
import re
import sys
from pathlib import Path

from .service import LIBRARIES, Service, found_in, imports_of, roots_of
from .source import (
    Source,
    bound_names,
    is_guard,
    module_of,
    server_target,
    top_imports,
    top_level,
)
from .started import find_start
from .texts import (
    AS_A_FILE,
    AS_A_PACKAGE,
    ENTERED,
    IMPORT,
    IMPORT_AS,
    LEFT,
    NOT_WITH_FASTAPI,
    OLD_ROUTER,
    ROUTER,
    Form,
    Stop,
)


def import_edit(
    source: Source, service: Service, form: Form, use: ast.stmt, module: str = ""
) -> tuple[str, list[tuple[int, list[str]]]]:
    """The name to use, and the import to insert, if one is needed."""
    if name := service.imported(source, form):
        return name, []
    module = module or f"{package_for(source, service)}.{form.module}"
    name = free_name(source, service, form, module)
    row, before, after = import_place(source, service, module, use)
    text = import_lines(module, form, name, line_length(service.file))
    return name, [(row, [*before, *text, *after])]


def free_name(source: Source, service: Service, form: Form, module: str) -> str:
    """The name for an import of the service's workers, or an alias if it is taken.

    Raises:
        Stop: The alias is taken, too.
    """
    taken = {name for name, _ in bound_names(source)}
    imported = {module_of(each) for each in top_imports(source)}
    endings = [f".{form.name}"]
    if form is ENTERED:  # The app may still include the old router of another service.
        endings.append(f".{OLD_ROUTER.module}.{OLD_ROUTER.name}")
    others = any(
        origin.endswith(tuple(endings)) and not service.is_meant(origin)
        for origin in source.origins.values()
    )
    name = form.name
    if name in taken or module in imported or others:
        name = form.alias.format(re.sub(r"[^0-9A-Za-z_]", "_", service.name))
        if name in taken:
            raise Stop(
                LEFT,
                f"the name {form.name} is taken in it, and so is {name}: rename one",
                by_hand=True,
            )
    return name


def router_edit(
    source: Source, service: Service, use: ast.stmt
) -> tuple[str, list[tuple[int, list[str]]]]:
    """The name and the import of the library's router, which a file imports once."""
    if name := router_of(source):
        return name, []
    imported = {module_of(each) for each in top_imports(source)}
    taken = {name for name, _ in bound_names(source)}
    name = ROUTER.name
    if name in taken or ROUTER.module in imported:
        name = ROUTER.alias
        if name in taken:
            raise Stop(
                LEFT,
                f"the name {ROUTER.name} is taken in it, and so is {name}: rename one",
                by_hand=True,
            )
    text = import_lines(ROUTER.module, ROUTER, name, line_length(service.file))
    imports = imports_before(source, use)
    if not imports:
        row = first_row(source)
        return name, [(row, ["", *text] if row else [*text, ""])]
    run = run_with_fastapi(runs_of(source, imports))
    row, before, after = library_place(source, service, run, ROUTER.module)
    return name, [(row, [*before, *text, *after])]


def router_of(source: Source) -> str:
    """The name under which a module imports the library's router, "" for none."""
    for node in source.tree.body:
        if isinstance(node, ast.ImportFrom) and module_of(node) == ROUTER.module:
            for each in node.names:
                if each.name == ROUTER.name:
                    return each.asname or each.name
    return ""


def library_place(
    source: Source, service: Service, run: list[ast.stmt], module: str
) -> tuple[int, list[str], list[str]]:
    """The place of an import of the library, which is among those of other packages."""
    packages = [each for each in run if is_of_package(each, service)]
    if packages:
        keys = [sort_key(each) for each in packages]
        later = [each for each in packages if sort_key(each) > from_key(module)]
        if not later or keys != sorted(keys):
            return packages[-1].end_lineno or 0, [], []
        if later[0] is packages[0]:  # A comment above the first is about all of them.
            return later[0].lineno - 1, [], []
        return row_before(source, later[0]), [], []
    standard = [each for each in run if is_of_python(each)]
    if standard:
        return standard[-1].end_lineno or 0, [""], []
    return row_before(source, run[0]), [], [""]


def is_of_python(node: ast.stmt) -> bool:
    """Whether an import is of the standard library."""
    return module_of(node).partition(".")[0] in sys.stdlib_module_names


def is_of_package(node: ast.stmt, service: Service) -> bool:
    """Whether an import is of an installed package, not of the project."""
    first = module_of(node).partition(".")[0]
    if first in LIBRARIES:
        return True
    return not (
        not first
        or is_of_python(node)
        or first in {"workers", *(folder.name for folder in service.file.parents)}
        or any(found_in(service.file, *each)[1] for each in imports_of(node))
    )


def import_lines(module: str, form: Form, name: str, length: int) -> list[str]:
    template = IMPORT if name == form.name else IMPORT_AS
    line = template.format(module=module, name=form.name, alias=name)
    return wrapped(line, length)


def wrapped(line: str, length: int) -> list[str]:
    """An import on one line, or in parentheses if one line would be too long."""
    if len(line) <= length:
        return [line]
    head, _, names = line.partition(" import ")
    return [f"{head} import (", *(f"    {each}," for each in names.split(", ")), ")"]


def package_for(source: Source, service: Service) -> str:
    """The import path of the service's `workers`, in the form of the file's own imports."""
    here, folder = service.file.parent, service.folder
    best = root_for(source, service)[0]
    if best != "." and Path(best) in (folder, *folder.parents):
        return ".".join([*folder.relative_to(best).parts, "workers"])
    up = os.path.relpath(folder, here).split(os.sep)
    dots = "." * (1 + up.count(".."))
    return dots + ".".join(
        [*(part for part in up if part not in ("..", ".")), "workers"]
    )


def root_for(source: Source, service: Service) -> tuple[str, str]:
    """The folder from which a file imports the service, "." for relative imports.

    The second value explains the choice to the user; it is "" if the file itself shows it.
    """
    if root := most_common_root(source, service) or root_of_target(source, service):
        return root, ""
    here = service.file.parent
    if start := find_start(service.file):
        shown = os.path.relpath(start.file, here)
        note = f" The import fits {shown}, which {start.how} {start.text}."
        return "." if start.as_package else str(here), note
    if is_started_as_a_file(source, service):
        return str(here), AS_A_FILE.format(stem=service.file.stem)
    note = AS_A_PACKAGE.format(folder=here.name, stem=service.file.stem)
    if not (here / "__init__.py").exists():
        note += NOT_WITH_FASTAPI.format(folder=here.name)
    return ".", note


def most_common_root(source: Source, service: Service) -> str:
    """The folder from which a file imports its own project, "." for relative imports.

    Modules beside the file count only if nothing else is imported from the project, because
    a folder there may have the name of a library. "" if the file imports no own module.
    """
    here = service.file.parent
    imports = [each for node in source.nodes for each in imports_of(node)]
    roots = ["." for module, _ in imports if module.startswith(".")]
    for module, names in imports:
        root, files = found_in(service.file, module, names)
        if files and not module.startswith("."):
            roots.append(str(root))
    if not roots:
        for module, _ in imports:
            first = module.partition(".")[0]
            for parent in roots_of(service.file, module):
                if parent / first in (here, *here.parents):
                    roots.append(str(parent))
    above = [root for root in roots if root != str(here)]
    return max(above or roots, key=(above or roots).count, default="")


OF_A_ROOT = (
    *(".git", "pyproject.toml", "setup.py", "requirements.txt", "Pipfile", "uv.lock"),
    *("Dockerfile", "Procfile", "environment.yml", "docker-compose.yml"),
)


def root_of_target(source: Source, service: Service) -> str:
    """The folder in which a file must be run that starts itself by name; else ""."""
    here = service.file.parent
    for node in source.nodes:
        if isinstance(node, ast.Call) and (target := server_target(node)):
            parts = target.partition(":")[0].split(".")
            if parts[-1] == service.file.stem:
                root = here
                for part in reversed(parts[:-1]):
                    if root.name != part:
                        break
                    root = root.parent
                else:
                    return str(root)
    return ""


def is_started_as_a_file(source: Source, service: Service) -> bool:
    """Whether a file is probably run as a file; this is a guess."""
    here = service.file.parent
    is_root = any((here / name).exists() for name in OF_A_ROOT)
    is_package = any(
        path.exists() and not is_rendered(path, service)
        for path in (here / "__init__.py", here.parent / "__init__.py")
    )
    is_script = any(is_guard(node) for node in source.tree.body)
    return is_root or (is_script and not is_package)


def is_rendered(path: Path, service: Service) -> bool:
    """Whether the template wrote a package's __init__.py; it shows nothing about the start."""
    return path.read_bytes() == f'"""The {service.name} service."""\n'.encode()


def import_place(
    source: Source, service: Service, module: str, use: ast.stmt
) -> tuple[int, list[str], list[str]]:
    """The row before which the import is inserted, and blank lines before and after it."""
    imports = imports_before(source, use)
    if not imports:
        row = first_row(source)
        return row, [""] if row else [], [] if row else [""]
    alike = [each for each in imports if is_alike(each, module, service)]
    runs = runs_of(source, imports)
    if alike:
        counts = [len([each for each in run if each in alike]) for run in runs]
        run = max(reversed(list(zip(counts, runs, strict=True))), key=lambda it: it[0])[
            1
        ]
        alike = [each for each in alike if each in run]
        keys = [sort_key(each) for each in alike]
        later = [each for each in alike if sort_key(each) > from_key(module)]
        if later and keys == sorted(keys):
            return row_before(source, later[0]), [], []
        return alike[-1].end_lineno or 0, [], []
    run = run_with_fastapi(runs)
    if settings := last_settings(source, run, use):
        return settings.end_lineno or 0, [""], []
    local = [each for each in run if module_of(each).startswith(".")]
    if local and not module.startswith("."):
        return row_before(source, local[0]), [], [""]
    return run[-1].end_lineno or 0, [""], []


def imports_before(source: Source, use: ast.stmt) -> list[ast.stmt]:
    return [
        each
        for each in top_imports(source)
        if each.lineno < top_level(source, use).lineno
        and module_of(each) != "__future__"
    ]


def last_settings(
    source: Source, run: list[ast.stmt], use: ast.stmt
) -> ast.stmt | None:
    """The last statement between imports and app that must run before jobs are imported."""
    for each in reversed(source.tree.body):
        if run[-1].lineno < each.lineno < top_level(source, use).lineno and (
            isinstance(each, ast.Expr)
            and source.has_its_lines(each)
            and re.match(
                r"(\w+\.)*load_dotenv|os\.environ|(\w+\.)*patch_all|sys\.path",
                ast.unparse(each),
            )
        ):
            return each
    return None


def is_alike(node: ast.stmt, module: str, service: Service) -> bool:
    """Whether an import belongs to the same group as an import of the module."""
    name = module_of(node)
    if module.startswith("."):
        return name.startswith(".")
    first, own = name.partition(".")[0], module.partition(".")[0]
    if own != "workers":
        return first == own
    return first == own or any(
        found_in(service.file, *each)[0] == service.file.parent
        for each in imports_of(node)
    )


def runs_of(source: Source, imports: list[ast.stmt]) -> list[list[ast.stmt]]:
    """The imports in groups, which other statements separate."""
    ids = {id(each) for each in imports}
    runs: list[list[ast.stmt]] = [[]]
    for statement in source.tree.body:
        if id(statement) in ids:
            runs[-1].append(statement)
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def run_with_fastapi(runs: list[list[ast.stmt]]) -> list[ast.stmt]:
    for run in runs:
        if any("fastapi" in ast.unparse(each) for each in run):
            return run
    return runs[-1]


def row_before(source: Source, statement: ast.stmt) -> int:
    """The row of a statement, or of the comment directly above it."""
    row = statement.lineno - 1
    while row and source.lines[row - 1].lstrip().startswith("#"):
        row -= 1
    while row < 2 and re.match(r"#!|#.*coding[:=]", source.lines[row]):
        row += 1
    return row


def first_row(source: Source) -> int:
    """The row for the first import in a module without imports."""
    body = source.tree.body
    row = 0
    for each in body:
        is_docstring = isinstance(each, ast.Expr) and isinstance(
            each.value, ast.Constant
        )
        if not is_docstring and module_of(each) != "__future__":
            break
        row = each.end_lineno or 0
    while not row and row < len(source.lines) and source.lines[row].startswith("#"):
        row += 1
    return row


def sort_key(node: ast.stmt) -> tuple[object, ...]:
    if isinstance(node, ast.Import):
        return (0, 0, natural(module_of(node)))
    return from_key(module_of(node))


def from_key(module: str) -> tuple[object, ...]:
    """The order of ruff and isort: more distant packages first, numbers by value."""
    name = module.lstrip(".")
    return (1, len(name) - len(module), natural(name))


def natural(text: str) -> list[tuple[int, int]]:
    return [
        (ord("0"), int(part)) if part.isdigit() else (ord(part), 0)
        for part in re.findall(r"\d+|\D", text.lower())
    ]


def line_length(file: Path) -> int:
    """The maximum line length in the project's configuration of ruff or black."""
    for folder in file.parents:
        for name in ("ruff.toml", ".ruff.toml", "pyproject.toml"):
            try:
                text = (folder / name).read_text(encoding="utf-8")
            except (OSError, ValueError):
                continue
            if found := re.search(r"(?m)^line[-_]length\s*=\s*(\d+)", text):
                return int(found[1])
        if (folder / ".git").exists():
            break
    return 88
