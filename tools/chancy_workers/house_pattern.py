"""Reads hand-written workers of the house pattern without importing them."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .python_files import (
    Backend,
    Bound,
    FunctionDef,
    Imported,
    Module,
    Scope,
    arguments,
    bindings_of,
    called,
    dotted,
    entered,
    evaluate,
    followed,
    function_of,
    is_plain,
    unpacked,
)

INITIALIZATION = "chancy_initialization"
INSTANCE = "chancy_instance"
ENTRY = "initialize_workers"
DEFAULT_TIMEZONE = "Etc/UTC"  # Chancy's default.
_OPTIONS = {
    "min_connection_pool_size",
    "max_connection_pool_size",
    "poll_reconnect_timeout",
    "notifications",
    "log",
}
# Arguments of a Worker that the library's Worker also takes.
WORKER_OPTIONS = ("tags", "worker_id", "queue_change_poll_interval")
# Arguments of a Worker that become rendered settings.
_SETTINGS = {
    "shutdown_timeout": "shutdown_grace",
    "heartbeat_timeout": "heartbeat_timeout",
}
_LOGGING = {"debug", "info", "warning", "error", "exception", "critical", "log"}
_INTO_MAIN = (
    "move it into main.py's lifespan, inside `async with initialize_workers():`, where "
    "get_chancy() gives the Chancy"
)


class Refusal(Exception):
    """Why nothing is written, in lines for the user."""


@dataclass(frozen=True)
class Unread:
    """A part that could not be read, and what the user can do about it."""

    where: str
    what: str
    why: str
    way_out: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}: {self.why}: {self.way_out}"


@dataclass(frozen=True)
class Schedule:
    """The schedule of a job that Cron pushes."""

    cron: str
    timezone: str
    job: Bound


@dataclass(frozen=True)
class JobFunction:
    """A function with Chancy's @job in a worker.py; its queue is None if it is computed."""

    name: str
    queue: str | None


@dataclass
class House:
    """The content of a team's chancy_initialization.py, and its jobs."""

    module: Module
    package: str
    secret: str = ""
    get_secret_value: str = ""
    prefix: str = "chancy_"
    options: dict[str, Bound] = field(default_factory=dict)
    has_default_plugins: bool = True
    plugins: list[Bound] = field(default_factory=list)
    queues: list[Bound] = field(default_factory=list)
    schedules: list[Schedule] = field(default_factory=list)
    workers: list[Bound] = field(default_factory=list)
    settings: dict[str, int] = field(default_factory=dict)
    jobs: dict[str, list[JobFunction]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    unread: list[Unread] = field(default_factory=list)


def read_house(service: Path, package: str, backend: Backend) -> House:
    """Reads a service's workers; parts that could not be read are in `unread`.

    Raises:
        OSError: chancy_initialization.py cannot be read.
        SyntaxError: It is not Python.
        Refusal: It does not have the house pattern.
    """
    workers = service / "workers"
    path = workers / f"{INITIALIZATION}.py"
    module = Module(backend, path, f"{package}.workers.{INITIALIZATION}")
    entry = module.look_up(ENTRY)
    if not isinstance(entry, ast.AsyncFunctionDef):
        raise Refusal(
            f"{path} has no `async def {ENTRY}()`, which the house pattern requires"
        )
    house = House(module, package)
    _Reader(house).read(entry)
    house.jobs = dict(_jobs(workers, house))
    return house


def is_chancy(bound: Any, name: str) -> bool:
    """Whether this is a call of a class or function of Chancy, such as Queue."""
    if not isinstance(bound, Bound) or not isinstance(bound.node, ast.Call):
        return False
    path = called(bound)
    return path.startswith("chancy.") and path.endswith(f".{name}")


class _Reader:
    """Follows the statements of initialize_workers() and records what they do."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._chancy: ast.expr | None = None
        self._yields = 0
        self._depth = 0

    def read(self, entry: ast.AsyncFunctionDef) -> None:
        module = self._house.module
        given = entry.args
        if given.args or given.posonlyargs or given.vararg or given.kwonlyargs:
            self._not_read(
                Bound(ast.Name(ENTRY, lineno=entry.lineno), module.scope),
                f"the rendered {ENTRY}() takes no arguments",
                "let it read the values itself",
            )
        names: dict[str, Any] = dict.fromkeys(each.arg for each in given.args)
        self._block(entry.body, Scope(module, names))
        if self._chancy is None:
            raise Refusal(f"{ENTRY}() in {module.path} creates no Chancy")
        if not self._house.workers:
            raise Refusal(f"{ENTRY}() in {module.path} enters no Worker")
        if self._yields != 1:
            raise Refusal(
                f"{ENTRY}() in {module.path} yields {self._yields} times, not once"
            )

    # --- statements ----------------------------------------------------------------------

    def _block(self, statements: list[ast.stmt], scope: Scope) -> None:
        for statement in statements:
            # A copy, because names may be bound again after this statement.
            here = Scope(scope.module, dict(scope.names))
            match statement:
                case (
                    ast.Pass() | ast.Expr(value=ast.Constant()) | ast.Return(value=None)
                ):
                    pass
                case ast.Expr(value=ast.Yield(value=value)):
                    self._yields += 1
                    if value is not None:
                        self._not_read(
                            Bound(value, here),
                            f"the rendered {ENTRY}() yields nothing",
                            "yield nothing, and let its users call get_chancy()",
                        )
                case ast.Expr(value=ast.Await(value=ast.Call() as call)):
                    self._call(Bound(call, here))
                case ast.Expr(value=ast.Call() as call):
                    self._call(Bound(call, here))
                case ast.Assign() | ast.AnnAssign() | ast.Import() | ast.ImportFrom():
                    self._bind(statement, here, scope)
                case (
                    ast.AsyncWith(items=items, body=body)
                    | ast.With(items=items, body=body)
                ):
                    self._with(items, body, scope)
                case ast.For(target=target, iter=iterable, body=body, orelse=[]):
                    self._loop(target, Bound(iterable, here), body, scope)
                case ast.If(test=test, body=body, orelse=orelse):
                    decided = evaluate(Bound(test, here))
                    if is_plain(decided):
                        self._block(body if decided else orelse, scope)
                    else:
                        self._not_read(
                            Bound(test, here),
                            "the result of the condition is known only at run time",
                            "remove the condition, adopt, and add it again",
                        )
                case ast.Try(body=body, handlers=[], orelse=orelse, finalbody=final):
                    self._block([*body, *orelse, *final], scope)
                case _:
                    self._not_read_statement(statement, here)

    def _bind(self, statement: ast.stmt, here: Scope, scope: Scope) -> None:
        if any(isinstance(node, ast.Await) for node in ast.walk(statement)):
            self._not_read_statement(statement, here)
        for name, binding in bindings_of(statement, here):
            scope.names[name] = binding
            value = evaluate(binding) if isinstance(binding, Bound) else None
            if is_chancy(value, "Chancy"):
                assert isinstance(value, Bound)
                self._create(value)

    def _with(
        self, items: list[ast.withitem], body: list[ast.stmt], scope: Scope
    ) -> None:
        for item in items:
            here = Scope(scope.module, dict(scope.names))
            value = self._enter(Bound(item.context_expr, here))
            if isinstance(item.optional_vars, ast.Name):
                scope.names[item.optional_vars.id] = value
        self._block(body, scope)

    def _enter(self, context: Bound) -> Bound:
        """Records a context manager that is entered: the Chancy or a Worker."""
        value = evaluate(context)
        if is_chancy(value, "Chancy"):
            self._create(value)
        elif is_chancy(value, "Worker"):
            self._work(value)
        elif isinstance(value, Bound) and isinstance(value.node, ast.Call):
            path = called(value)
            found = function_of(value)
            if path.rpartition(".")[2] in ("AsyncExitStack", "ExitStack"):
                pass
            elif found and any(
                dotted(each, found[1].scope) == "contextlib.asynccontextmanager"
                for each in found[0].decorator_list
            ):
                before = self._yields
                self._inline(value, *found)
                self._yields = before
            else:
                self._not_read(value, f"{ENTRY}() enters it", _INTO_MAIN)
        else:
            self._not_read(context, f"{ENTRY}() enters it", _INTO_MAIN)
        return value if isinstance(value, Bound) else context

    def _loop(
        self, target: ast.expr, iterable: Bound, body: list[ast.stmt], scope: Scope
    ) -> None:
        match iterable.node:
            case ast.Call(func=ast.Attribute(value=value, attr="items"), args=[]):
                mapping = evaluate(Bound(value, iterable.scope))
                items = [*mapping.items()] if isinstance(mapping, dict) else None
            case _:
                found = evaluate(iterable)
                items = [*found] if isinstance(found, list | tuple | dict) else None
        for item in items or []:
            names = unpacked(target, item)
            if names is None:
                items = None
                break
            self._block(body, Scope(scope.module, {**scope.names, **names}))
        if items is None:
            self._not_read(
                iterable,
                "the items of the loop are known only at run time",
                "write the list out, or the calls without the loop",
            )

    # --- calls ---------------------------------------------------------------------------

    def _call(self, call: Bound) -> None:
        assert isinstance(call.node, ast.Call)
        path = called(call)
        instance = f"{self._house.package}.workers.{INSTANCE}."
        if self._is_method_of_chancy(call):
            self._method(call)
        elif path.startswith("chancy.") and path.endswith("Cron.schedule"):
            self._schedule(call)
        elif path.startswith("chancy.") and path.endswith("Cron.unschedule"):
            self._note(call, "is left out: earlier starts have already done it")
        elif path.startswith(instance):
            pass
        elif path == "asyncio.gather":
            self._gather(call)
        elif path in ("print", "") and _is_logging(call.node):
            self._note(call, "is left out: the rendered workers log their own start")
        elif (
            isinstance(call.node.func, ast.Attribute)
            and call.node.func.attr == "enter_async_context"
            and len(call.node.args) == 1
        ):
            self._enter(Bound(call.node.args[0], call.scope))
        elif found := function_of(call):
            self._inline(call, *found)
        elif _is_logging(call.node):
            self._note(call, "is left out: the rendered workers log their own start")
        else:
            self._not_read(call, f"{ENTRY}() calls it", _INTO_MAIN)

    def _is_method_of_chancy(self, call: Bound) -> bool:
        assert isinstance(call.node, ast.Call)
        function = call.node.func
        return isinstance(function, ast.Attribute) and is_chancy(
            evaluate(Bound(function.value, call.scope)), "Chancy"
        )

    def _method(self, call: Bound) -> None:
        assert isinstance(call.node, ast.Call)
        assert isinstance(call.node.func, ast.Attribute)
        match call.node.func.attr:
            case "declare" | "sync_declare":
                given = arguments(call)
                first = given[0][0] if given and given[0] else None
                if given and first is None:
                    first = given[1].get("queue")
                queue = evaluate(first) if first else None
                if is_chancy(queue, "Queue"):
                    assert isinstance(queue, Bound)
                    self._house.queues.append(queue)
                else:
                    self._not_read(
                        call, "it is not a Queue(…) written in the file", "write it out"
                    )
            case "migrate" | "is_up_to_date":
                self._not_read(
                    call,
                    "the rendered workers never migrate at a start",
                    f"remove it; python -m {self._house.package}.workers migrate does it",
                )
            case _:
                self._not_read(call, f"{ENTRY}() calls it", _INTO_MAIN)

    def _schedule(self, call: Bound) -> None:
        given = arguments(call)
        cron = evaluate(given[0][1]) if given and len(given[0]) > 1 else None
        timezone = self._timezone(given[1]) if given else None
        if given is None or not isinstance(cron, str) or timezone is None:
            self._not_read(
                call,
                "its schedule or another argument is known only at run time",
                "write them as texts, and each job by its name",
            )
            return
        for job in given[0][2:]:
            self._house.schedules.append(Schedule(cron, timezone, job))

    def _timezone(self, named: dict[str, Bound]) -> str | None:
        if "timezone" not in named:
            return DEFAULT_TIMEZONE
        value = evaluate(named["timezone"])
        if isinstance(value, Bound) and isinstance(value.node, ast.Call):
            given = arguments(value)
            if called(value) == "zoneinfo.ZoneInfo" and given and len(given[0]) == 1:
                value = evaluate(given[0][0])
        return value if isinstance(value, str) else None

    def _gather(self, call: Bound) -> None:
        assert isinstance(call.node, ast.Call)
        for argument in call.node.args:
            match argument:
                case ast.Call():
                    self._call(Bound(argument, call.scope))
                    continue
                case ast.Starred(value=ast.GeneratorExp() | ast.ListComp() as made):
                    listed = ast.copy_location(
                        ast.ListComp(made.elt, made.generators), made
                    )
                    each = evaluate(Bound(listed, call.scope))
                    if isinstance(each, list) and all(
                        isinstance(one, Bound) and isinstance(one.node, ast.Call)
                        for one in each
                    ):
                        for one in each:
                            self._call(one)
                        continue
            self._not_read(
                Bound(argument, call.scope),
                "its calls are known only at run time",
                "await the calls one after the other",
            )

    def _inline(self, call: Bound, function: FunctionDef, module: Module) -> None:
        """Follows the statements of a function of the backend."""
        scope = entered(call, function, module)
        if scope is None or self._depth > 5:
            self._not_read(
                call, "its arguments cannot be determined statically", "call it plainly"
            )
            return
        self._depth += 1
        self._block(function.body, scope)
        self._depth -= 1

    # --- the Chancy and its Workers ------------------------------------------------------

    def _create(self, call: Bound) -> None:
        if self._chancy is call.node:
            return
        if self._chancy is not None:
            self._not_read(
                call, "it is a second Chancy", "keep one Chancy for each service"
            )
            return
        self._chancy = call.node
        given = arguments(call)
        if given is None:
            self._not_read(
                call, "its arguments are known only at run time", "write them out"
            )
            return
        positional, named = given
        named = {**named, **dict(zip(["dsn"], positional, strict=False))}
        if "dsn" in named:
            self._database(named.pop("dsn"))
        for name, value in named.items():
            match name:
                case "prefix":
                    self._house.prefix = self._plain(value, str, self._house.prefix)
                case "no_default_plugins":
                    self._house.has_default_plugins = not self._plain(value, bool, True)
                case "plugins":
                    self._plugins(value)
                case _ if name in _OPTIONS:
                    self._house.options[name] = value
                case _:
                    self._not_read(value, f"Chancy(… {name}=…) is unknown", "remove it")

    def _plugins(self, value: Bound) -> None:
        plugins = evaluate(value)
        if not isinstance(plugins, list | tuple):
            self._not_read(
                value, "it is not a list written in the file", "write it out"
            )
            return
        for plugin in plugins:
            if isinstance(plugin, Bound) and isinstance(plugin.node, ast.Call):
                self._house.plugins.append(plugin)
            else:
                self._not_read(
                    plugin if isinstance(plugin, Bound) else value,
                    "a plugin is created in a way that cannot be read",
                    "write its call into the list",
                )

    def _work(self, call: Bound) -> None:
        self._house.workers.append(call)
        given = arguments(call)
        if given is None:
            self._not_read(
                call, "its arguments are known only at run time", "write them out"
            )
            return
        for name, value in given[1].items():
            match name:
                case "chancy" | "register_signal_handlers":
                    pass
                case "heartbeat_poll_interval":
                    self._house.notes.append(
                        "heartbeat_poll_interval is left out: it is a third of the "
                        "setting heartbeat_timeout."
                    )
                case _ if name in WORKER_OPTIONS:
                    pass
                case _ if name in _SETTINGS:
                    self._set(_SETTINGS[name], value)
                case _:
                    self._not_read(
                        value,
                        f"Worker(… {name}=…) has no place in the rendered file",
                        "remove it",
                    )
        signals = given[1].get("register_signal_handlers")
        if signals is None or evaluate(signals) is not False:
            self._note(
                call,
                "gets register_signal_handlers=False, so that uvicorn can stop the service",
            )

    def _set(self, name: str, value: Bound) -> None:
        number = self._plain(value, int, 0)
        if number:
            self._house.settings[name] = max(
                number, self._house.settings.get(name, number)
            )

    def _database(self, dsn: Bound) -> None:
        """Records the secret of the database's URL, and the function that reads it."""
        value = followed(dsn)
        house = self._house
        match value:
            case Bound(node=ast.Constant() | ast.JoinedStr() | ast.BinOp()):
                self._not_read(
                    dsn,
                    "the URL is written in the code",
                    "keep it as a secret, and read it with get_secret_value(NAME)",
                    hidden=True,
                )
                return
            case Bound(node=ast.Subscript(value=mapping, slice=index), scope=scope) if (
                dotted(mapping, scope) == "os.environ"
            ):
                secret = evaluate(Bound(index, scope))
                path = ""
            case Bound(node=ast.Call()):
                given = arguments(value)
                path = called(value)
                one = given and len(given[0]) == 1 and not given[1]
                secret = evaluate(given[0][0]) if given and one else None
                if path in ("os.getenv", "os.environ.get"):
                    path = ""
                elif not self._is_importable(value, path):
                    secret = None
            case _:
                path, secret = "", None
        if not isinstance(secret, str):
            self._not_read(
                dsn,
                "the database's URL does not come from a function that takes a secret's "
                "name and can be imported from another module",
                "write such a function, get_secret_value(name), into a module such as "
                "app/secret_values.py, and call it here with the name",
                hidden=True,
            )
        elif not path and secret != secret.upper().replace("-", "_"):
            self._not_read(
                dsn,
                "the rendered workers read environment variables in capitals",
                f"name the variable {secret.upper().replace('-', '_')}",
            )
        else:
            house.secret, house.get_secret_value = secret, path

    def _is_importable(self, call: Bound, path: str) -> bool:
        module_path, _, name = path.rpartition(".")
        house = self._house
        if not module_path or module_path == house.module.dotted:
            return False
        module = house.module.backend.module(module_path)
        if module is not None:
            binding = module.look_up(name)
            return binding is not None and not isinstance(binding, ast.AsyncFunctionDef)
        assert isinstance(call.node, ast.Call)
        match call.node.func:
            case ast.Name(id=name):
                return isinstance(call.scope.look_up(name), Imported)
            case ast.Attribute(value=ast.Name(id=name)):
                found = call.scope.look_up(name)
                return isinstance(found, Imported) and isinstance(
                    found.statement, ast.Import
                )
        return False

    # --- notes and problems --------------------------------------------------------------

    def _plain(self, bound: Bound, kind: type, otherwise: Any) -> Any:
        value = evaluate(bound)
        if type(value) is kind:
            return value
        self._not_read(
            bound,
            "its value is known only at run time",
            f"write it as a {'text' if kind is str else 'value'}",
        )
        return otherwise

    def _not_read(
        self, bound: Bound, why: str, way_out: str, *, hidden: bool = False
    ) -> None:
        what = "the first argument of Chancy" if hidden else _short(bound.text)
        self._house.unread.append(Unread(bound.where, what, why, way_out))

    def _not_read_statement(self, statement: ast.stmt, scope: Scope) -> None:
        self._house.unread.append(
            Unread(
                f"{scope.module.path.name}, line {statement.lineno}",
                _short(ast.unparse(statement)),
                f"{ENTRY}() does it",
                _INTO_MAIN,
            )
        )

    def _note(self, bound: Bound, what: str) -> None:
        self._house.notes.append(f"{bound.where}: {_short(bound.text)} {what}.")


def _is_logging(call: ast.Call) -> bool:
    match call.func:
        case ast.Name(id="print"):
            return True
        case ast.Attribute(attr=attr):
            return attr in _LOGGING
    return False


def _short(text: str) -> str:
    line = " ".join(text.split())
    return f"`{line[:77]}...`" if len(line) > 80 else f"`{line}`"


def _jobs(workers: Path, house: House) -> Iterator[tuple[str, list[JobFunction]]]:
    """Yields each folder with a worker.py, and the jobs in it."""
    for path in sorted(workers.glob("*/worker.py")):
        folder = path.parent.name
        module_path = f"{house.package}.workers.{folder}.worker"
        module = house.module.backend.module(module_path)
        if module is None:
            house.unread.append(
                Unread(
                    f"{folder}/worker.py",
                    "the file",
                    "it cannot be read as Python",
                    "correct it",
                )
            )
            continue
        functions = []
        for statement in module.tree.body:
            if isinstance(statement, FunctionDef):
                for decorator in statement.decorator_list:
                    bound = Bound(decorator, module.scope)
                    if is_chancy(bound, "job"):
                        given = arguments(bound)
                        queue: Any = "default"
                        if given is None:
                            queue = None
                        elif "queue" in given[1]:
                            queue = evaluate(given[1]["queue"])
                        name = queue if isinstance(queue, str) else None
                        functions.append(JobFunction(statement.name, name))
        yield folder, functions
