"""Brings what a team wrote by hand into a rendered chancy_initialization.py."""

import ast
import builtins
import copy
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ruff import find_ruff_bin  # type: ignore[import-untyped]

from .house_pattern import House, Unread, is_chancy
from .python_files import (
    Backend,
    Bound,
    Imported,
    Module,
    Scope,
    absolute,
    arguments,
    bindings_of,
    called,
    dotted,
    evaluate,
    followed,
    is_plain,
)

_EXECUTORS = {
    "chancy.executors.asyncex.AsyncExecutor": "async",
    "chancy.executors.thread.ThreadedExecutor": "thread",
    "chancy.executors.process.ProcessExecutor": "process",
}
_MEMBERS = {"Async": "async", "Threaded": "thread", "Process": "process"}
_ALL_TAGS = {".*"}
_DEFAULT_PLUGINS = ("Leadership", "Pruner", "Recovery", "Metrics", "WorkflowPlugin")
_POSITIONAL = {"Pruner": ("rule",), "Leadership": ("poll_interval", "timeout")}
_RANGES = {
    "shutdown_grace": (1, 3600),
    "heartbeat_timeout": (10, 3600),
    "leader_lease": (10, 3600),
    "poll_interval": (1, 3600),
}


class NotCarriedOver(Exception):
    """An expression that cannot stand in the rendered file, and why."""


# ------------------------------------------------------------------ the answers for Copier


@dataclass
class QueueFacts:
    """A declared queue: what the template asks for, and what it does not."""

    name: str
    answer: dict[str, Any]
    by_hand: dict[str, Bound] = field(default_factory=dict)


def queue_facts(house: House) -> list[QueueFacts]:
    """Returns the queues of a house, `default` among them, in their order.

    Raises:
        NotCarriedOver: A queue's name or arguments are known only when it runs.
    """
    worker_tags = [tag for tags in map(tags_of, house.workers) for tag in tags or ()]
    facts: list[QueueFacts] = []
    for call in house.queues:
        given = arguments(call)
        if given is None:
            raise NotCarriedOver(f"{call.text}: its arguments cannot be told apart")
        named = {**given[1], **dict(zip(["name"], given[0], strict=False))}
        name = evaluate(named.pop("name")) if "name" in named else None
        if not isinstance(name, str):
            raise NotCarriedOver(f"{call.text}: its name is known only when it runs")
        if name not in [each.name for each in facts]:
            facts.append(_queue(name, named, worker_tags))
    if "default" not in [each.name for each in facts]:
        # Chancy's Worker declares it by itself, on a process executor.
        facts.append(QueueFacts("default", {"name": "default", "executor": "process"}))
    return facts


def _queue(name: str, named: dict[str, Bound], worker_tags: list[str]) -> QueueFacts:
    facts = QueueFacts(name, {"name": name, "executor": "process"})
    limits = {key: evaluate(named[key]) for key in _LIMITS if key in named}
    for key, bound in named.items():
        value = evaluate(bound)
        match key:
            case "executor":
                kind = _EXECUTORS.get(str(value)) or _MEMBERS.get(_member(bound))
                facts.answer[key] = kind or "async"
                if kind is None:
                    facts.by_hand[key] = bound
            case "concurrency" if type(value) is int:
                facts.answer[key] = value
            case "rate_limit" | "rate_limit_window" if len(limits) == 2 and all(
                type(limit) is int for limit in limits.values()
            ):
                facts.answer[key] = value
            case "tags" if isinstance(value, set | frozenset | list | tuple):
                if set(value) != _ALL_TAGS:
                    if value and all(_is_exact(tag, worker_tags) for tag in value):
                        facts.answer[key] = sorted(value)
                    else:
                        facts.by_hand[key] = bound
            case "concurrency" | "rate_limit" | "rate_limit_window" if value is None:
                pass
            case "eager_polling" if value is True:
                pass
            case _:
                facts.by_hand[key] = bound
    return facts


_LIMITS = ("rate_limit", "rate_limit_window")


def _member(bound: Bound) -> str:
    """The name of a member of Chancy.Executor, of the class or of an instance of it."""
    match followed(bound).node:
        case ast.Attribute(value=ast.Attribute(attr="Executor"), attr=name):
            return name
    return ""


def _is_exact(tag: Any, worker_tags: list[str]) -> bool:
    """Whether a tag, which is a pattern, means the workers that have just this tag."""
    if not isinstance(tag, str) or tag not in worker_tags:
        return False
    try:
        return [t for t in worker_tags if re.match(tag, t)] == [
            t for t in worker_tags if t == tag
        ]
    except re.error:
        return False


def tags_of(worker: Bound) -> list[str] | None:
    """Returns a Worker's tags, None where they are known only when it runs."""
    given = arguments(worker)
    if given is None or "tags" not in given[1]:
        return []
    value = evaluate(given[1]["tags"])
    if value is None:
        return []
    is_known = isinstance(value, set | frozenset | list | tuple) and is_plain(value)
    return sorted(value) if is_known else None


def plugin_names(house: House) -> list[str]:
    """Returns the names of a house's plugins of Chancy's, also of its default ones."""
    names = [_plugin_name(each) for each in house.plugins]
    if house.has_default_plugins:
        names += [each for each in _DEFAULT_PLUGINS if each not in names]
    return names


def _plugin_name(plugin: Bound) -> str:
    path = called(plugin)
    return path.rpartition(".")[2] if path.startswith("chancy.") else ""


def _replaced_by(plugin: Bound) -> str:
    """The plugin of Chancy's that a team's own one derives from, and stands for."""
    path = called(plugin)
    module_path, _, name = path.rpartition(".")
    module = plugin.scope.module
    if module_path != module.dotted:
        found = module.backend.module(module_path) if module_path else None
        if found is None:
            return ""
        module = found
    match module.look_up(name):
        case ast.ClassDef(bases=bases):
            for base in bases:
                path = dotted(base, module.scope)
                if path.startswith("chancy.plugins."):
                    return path.rpartition(".")[2]
    return ""


# ------------------------------------------------------------------------- the file itself


def adopted(rendered: str, house: House, kept: Iterable[str]) -> str:
    """Returns the rendered chancy_initialization.py with the team's ways in it.

    What could not be brought over is added to `house.unread`.

    Args:
        kept: Names of the file by hand that other modules import from it.
    """
    return _Adoption(rendered, house).run(kept)


class _Adoption:
    def __init__(self, rendered: str, house: House) -> None:
        self._house = house
        self._source = rendered.encode()
        self._tree = ast.parse(self._source)
        self._edits: list[tuple[int, int, str]] = []
        self._carry = _Carry(self._tree, house)
        self._settings = dict(house.settings)

    def run(self, kept: Iterable[str]) -> str:
        house = self._house
        for what, step in (
            ("the pool sizes", self._constants),
            ("the queues", self._queues),
            ("the cron jobs", self._cron_jobs),
            ("the arguments of Chancy", self._chancy),
            ("the workers", self._workers),
            ("the settings", self._write_settings),
        ):
            try:
                step()
            except NotCarriedOver as problem:
                self._not_carried(what, problem)
        for name in kept:
            try:
                self._carry.keep(name)
            except NotCarriedOver as problem:
                self._not_carried(f"{name}, which other files import", problem)
        for statement in house.module.tree.body:
            try:
                self._carry.keep_effect(statement)
            except NotCarriedOver as problem:
                self._not_carried(f"line {statement.lineno}", problem)
        if house.unread:
            return ""
        text = tidied(self._edited(), house.module.backend)
        _prove(text, house)
        return text

    def _not_carried(self, what: str, problem: NotCarriedOver) -> None:
        self._house.unread.append(
            Unread(
                self._house.module.path.name,
                what,
                str(problem),
                "write it so that it stands in the file, or take it out, and write it in "
                "again when the service is adopted",
            )
        )

    # --- what is edited --------------------------------------------------------------

    def _constants(self) -> None:
        house = self._house
        sizes = {
            "min": ("CHANCY_MIN_POOL_SIZE", 1),
            "max": ("CHANCY_MAX_POOL_SIZE", 10),
        }
        for which, (constant, default) in sizes.items():
            given = house.options.get(f"{which}_connection_pool_size")
            text = self._carry.value(given) if given else str(default)
            self._replace(self.assigned(constant), text)
        self._replace(self.assigned("DATABASE_SECRET"), repr(house.secret))

    def _queues(self) -> None:
        written = self.assigned("QUEUES")
        assert isinstance(written, ast.List)
        calls = {self.queue_name(each): each for each in written.elts}
        texts = []
        for facts in queue_facts(self._house):
            keywords = self._answered(facts)
            if call := calls.get(facts.name):
                assert isinstance(call, ast.Call)
                keywords |= {
                    str(each.arg): self._segment(each.value) for each in call.keywords
                }
            keywords |= {"eager_polling": "True"} | {
                key: self._carry.value(each) for key, each in facts.by_hand.items()
            }
            if (
                member := _member(facts.by_hand["executor"])
                if "executor" in facts.by_hand
                else ""
            ):
                keywords["executor"] = f"Chancy.Executor.{member}"
            # As in the template: eager_polling is the last.
            keywords["eager_polling"] = keywords.pop("eager_polling")
            texts.append(_call("Queue", [repr(facts.name)], keywords))
        self._replace(written, _list(texts))

    @staticmethod
    def _answered(facts: QueueFacts) -> dict[str, str]:
        """The arguments that the template renders where it takes the queue's name."""
        member = {kind: name for name, kind in _MEMBERS.items()}[
            facts.answer["executor"]
        ]
        keywords = {"executor": f"Chancy.Executor.{member}"}
        for key in ("concurrency", *_LIMITS):
            if key in facts.answer:
                keywords[key] = str(facts.answer[key])
        if "tags" in facts.answer:
            tags = ", ".join(f'"^{tag}$"' for tag in facts.answer["tags"])
            keywords["tags"] = f"{{{tags}}}"
        return keywords

    def _cron_jobs(self) -> None:
        texts = [
            _call(
                "CronJob",
                [],
                {
                    "job": self._carry.text(each.job),
                    "cron": repr(each.cron),
                    "timezone": repr(each.timezone),
                },
            )
            for each in self._house.schedules
        ]
        statement = self._statement("CRON_JOBS")
        if texts:
            # Also where it is an annotated empty list.
            self._replace(statement, f"CRON_JOBS = {_list(texts)}")
        for node in self._tree.body:
            if _imports_a_job(node):
                self._replace(node, "")

    def _chancy(self) -> None:
        call = self.call_in("create_chancy", "Chancy")
        keywords = {str(each.arg): each.value for each in call.keywords}
        options = self._house.options
        self._replace(keywords["prefix"], repr(self._house.prefix))
        if "log" in options and evaluate(options["log"]) is not None:
            self._replace(keywords["log"], self._carry.text(options["log"]))
        if "notifications" in options and evaluate(options["notifications"]) is not True:
            self._house.notes.append(
                "notifications=False is left out: the rendered workers stand on LISTEN."
            )
        if "poll_reconnect_timeout" in options:
            self._house.notes.append(
                "poll_reconnect_timeout is left out: the rendered pool tries for ever."
            )
        self._plugins(keywords["plugins"])

    def _plugins(self, written: ast.expr) -> None:
        assert isinstance(written, ast.List)
        texts = {
            ast.unparse(each).partition("(")[0]: self._segment(each)
            for each in written.elts
        }
        wanted = set(plugin_names(self._house))
        replaced = {_replaced_by(plugin) for plugin in self._house.plugins} - {""}
        for name in sorted(replaced):
            self._house.notes.append(
                f"Your own {name} stays in the place of the template's."
            )
        if "Cron" not in wanted | replaced:
            self._house.notes.append(
                "The plugin Cron comes with the template, and has a table: run "
                f"python -m {self._house.package}.workers migrate before the first start."
            )
        for name in texts.keys() - wanted - ({"Cron"} - replaced):
            del texts[name]
        for plugin in self._house.plugins:
            name = _plugin_name(plugin)
            given = arguments(plugin)
            if given is None:
                raise NotCarriedOver(
                    f"{plugin.text}: its arguments cannot be told apart"
                )
            if name in ("Pruner", "Recovery", "Cron", "Leadership"):
                texts[name] = self._standard(name, *given)
            elif name != "SentryPlugin":
                texts[name or plugin.text] = self._carry.text(plugin)
        if texts.keys() != {
            ast.unparse(each).partition("(")[0] for each in written.elts
        } or any(
            ast.dump(ast.parse(a)) != ast.dump(ast.parse(self._segment(b)))
            for a, b in zip(texts.values(), written.elts, strict=False)
        ):
            self._replace(written, _list(texts.values()))

    def _standard(
        self, name: str, positional: list[Bound], named: dict[str, Bound]
    ) -> str:
        """One of the four plugins that the template always has; timing is in SETTINGS."""
        named = {
            **dict(zip(_POSITIONAL.get(name, ()), positional, strict=False)),
            **named,
        }
        interval = named.pop("poll_interval", None)
        if name == "Leadership":
            if timeout := named.pop("timeout", None):
                self._set("leader_lease", timeout)
        elif interval:
            self._set("poll_interval", interval)
        rule = named.pop("rule", None)
        keywords = {key: self._carry.text(each) for key, each in named.items()}
        return _call(name, [self._carry.text(rule)] if rule else [], keywords)

    def _set(self, name: str, bound: Bound) -> None:
        value = evaluate(bound)
        if type(value) is not int:
            raise NotCarriedOver(f"{bound.text} is known only when it runs")
        if name in self._settings and self._settings[name] != value:
            value = min(value, self._settings[name])
            self._house.notes.append(
                f"The template has one {name} for all plugins: it is the lowest, {value}."
            )
        self._settings[name] = value

    def _workers(self) -> None:
        function = self._statement("initialize_workers")
        calls = [
            node
            for node in ast.walk(function)
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "Worker"
        ]
        calls.sort(key=lambda node: node.lineno)
        for call, worker in zip(calls, self._house.workers, strict=True):
            tags = tags_of(worker)
            given = arguments(worker)
            written = {each.arg: each.value for each in call.keywords}.get("tags")
            present = sorted(ast.literal_eval(written)) if written else []
            if tags == present:
                continue
            assert given
            text = self._carry.value(given[1]["tags"])
            end = self._offset(call.keywords[-1].value, end=True)
            if written:
                self._replace(written, text)
            else:
                self._edits.append((end, end, f", tags={text}"))

    def _write_settings(self) -> None:
        for name, value in self._settings.items():
            lowest, highest = _RANGES[name]
            if not lowest <= value <= highest:
                raise NotCarriedOver(
                    f"{name} is {value}, and takes {lowest} to {highest}"
                )
        if self._settings:
            texts = {name: str(value) for name, value in self._settings.items()}
            self._replace(self.assigned("SETTINGS"), _call("Settings", [], texts))

    # --- the rendered file -----------------------------------------------------------

    def _statement(self, name: str) -> ast.stmt:
        for statement in self._tree.body:
            match statement:
                case (
                    ast.Assign(targets=[ast.Name(id=bound)])
                    | ast.AnnAssign(target=ast.Name(id=bound))
                    | ast.FunctionDef(name=bound)
                    | ast.AsyncFunctionDef(name=bound)
                ) if bound == name:
                    return statement
        raise AssertionError(f"the template renders no {name}")

    def assigned(self, name: str) -> ast.expr:
        statement = self._statement(name)
        assert isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value
        return statement.value

    def call_in(self, function: str, name: str) -> ast.Call:
        for node in ast.walk(self._statement(function)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == name:
                return node
        raise AssertionError(f"{function}() of the template calls no {name}")

    @staticmethod
    def queue_name(call: ast.expr) -> str:
        assert isinstance(call, ast.Call)
        return str(ast.literal_eval(call.args[0]))

    def _offset(self, node: ast.expr | ast.stmt, *, end: bool = False) -> int:
        """Where a node begins or ends, in bytes."""
        line = (node.end_lineno if end else node.lineno) or 0
        column = (node.end_col_offset if end else node.col_offset) or 0
        lines = self._source.splitlines(keepends=True)
        return sum(map(len, lines[: line - 1])) + column

    def _segment(self, node: ast.expr) -> str:
        return self._source[self._offset(node) : self._offset(node, end=True)].decode()

    def _replace(self, node: ast.expr | ast.stmt, text: str) -> None:
        """Replaces a node, unless the text says the same."""
        if text and ast.dump(ast.parse(text)) == ast.dump(ast.parse(ast.unparse(node))):
            return
        self._edits.append((self._offset(node), self._offset(node, end=True), text))

    def _edited(self) -> str:
        source = self._source
        first = self._offset(self._statement("DATABASE_SECRET"))
        statements = self._carry.statements()
        if statements:
            self._edits.append((first, first, "\n\n".join(statements) + "\n\n"))
        imports = next(
            node
            for node in self._tree.body
            if isinstance(node, ast.ImportFrom) and node.level
        )
        if self._carry.imports:
            at = self._offset(imports)
            self._edits.append((at, at, "\n".join(self._carry.imports) + "\n"))
        for start, end, text in sorted(self._edits, key=lambda e: e[:2], reverse=True):
            source = source[:start] + text.encode() + source[end:]
        return source.decode()


def _call(name: str, positional: list[str], keywords: dict[str, str]) -> str:
    """A call, over as many lines as it has arguments."""
    parts = [*positional, *(f"{key}={text}" for key, text in keywords.items())]
    return (
        f"{name}(\n{''.join(f'{part},{chr(10)}' for part in parts)})"
        if parts
        else f"{name}()"
    )


def _list(items: Iterable[str]) -> str:
    return "[\n" + "".join(f"{item},\n" for item in items) + "]"


def tidied(text: str, backend: Backend, *, keep_unused: bool = False) -> str:
    """Returns a file as the template's own formatting has it, without unused imports."""
    checks = [
        "--select=I" if keep_unused else "--select=I,F401",
        "--fix",
        "--exit-zero",
        f"--config=lint.isort.known-first-party={sorted(backend.top_level())}",
    ]
    return _ruff("format", text=_ruff("check", *checks, text=text))


def _ruff(*command: str, text: str) -> str:
    quiet = ["--isolated", "--quiet", "--no-cache", "--stdin-filename=adopted.py", "-"]
    result = subprocess.run(
        [find_ruff_bin(), *command, *quiet], input=text, capture_output=True, text=True
    )
    if result.returncode:
        raise AssertionError(f"{result.stdout}{result.stderr}\n{text}")
    return result.stdout


def _prove(text: str, house: House) -> None:
    """Makes sure that the file says what the one by hand said, and knows all its names.

    Raises:
        AssertionError: It does not, which is a fault of this program.
    """
    _ruff("check", "--select=F821,F811", text=text)
    rendered = _Adoption(text, house)
    queues = rendered.assigned("QUEUES")
    assert isinstance(queues, ast.List)
    assert [rendered.queue_name(each) for each in queues.elts] == [
        facts.name for facts in queue_facts(house)
    ]
    cron_jobs = rendered.assigned("CRON_JOBS")
    assert isinstance(cron_jobs, ast.List)
    assert [
        [ast.literal_eval(each.value) for each in call.keywords[1:]]
        for call in cron_jobs.elts
        if isinstance(call, ast.Call)
    ] == [[schedule.cron, schedule.timezone] for schedule in house.schedules]
    keywords = {
        each.arg: each.value
        for each in rendered.call_in("create_chancy", "Chancy").keywords
    }
    assert ast.literal_eval(keywords["prefix"]) == house.prefix
    assert ast.literal_eval(rendered.assigned("DATABASE_SECRET")) == house.secret


# ------------------------------------------------------- expressions and what they stand on


class _Carry:
    """Takes expressions over, and notes the imports and statements that they need."""

    def __init__(self, rendered: ast.Module, house: House) -> None:
        self._house = house
        module = house.module
        scope = module.scope
        self._rendered: dict[str, Any] = {}
        for statement in rendered.body:
            if not _imports_a_job(statement):
                self._rendered.update(bindings_of(statement, scope))
        self.imports: dict[str, None] = {}
        self._statements: dict[ast.stmt, None] = {}

    def statements(self) -> list[str]:
        """The statements of the file by hand that are needed, in its order."""
        module = self._house.module
        found = sorted(self._statements, key=lambda each: each.lineno)
        return [module.segment(each).rstrip() for each in found]

    def value(self, bound: Bound) -> str:
        """The text of what an expression stands for: its value, where that is known."""
        value = evaluate(bound)
        if isinstance(value, set | frozenset) and is_plain(value):
            items = ", ".join(map(repr, sorted(value, key=repr)))
            return f"{{{items}}}" if value else "set()"
        return repr(value) if is_plain(value) else self.text(followed(bound))

    def text(self, bound: Bound) -> str:
        """The text of an expression in the rendered file."""
        return ast.unparse(self.node(bound))

    def node(self, bound: Bound) -> ast.expr:
        node: ast.expr = _Inliner(self, bound).visit(copy.deepcopy(bound.node))
        return node

    def keep(self, name: str) -> None:
        """Keeps a name of the file by hand that others import."""
        if name in self._rendered:
            return
        binding = self._house.module.look_up(name)
        if isinstance(binding, Bound) and is_chancy(evaluate(binding), "Chancy"):
            raise NotCarriedOver(
                "the rendered Chancy is made at each start: let them call get_chancy()"
            )
        if binding is None or isinstance(binding, Imported):
            raise NotCarriedOver("let them import it from where it is defined")
        self._statement(name, self._house.module)

    def keep_effect(self, statement: ast.stmt) -> None:
        """Keeps a statement of the file by hand that does something when it is imported."""
        module = self._house.module
        match statement:
            case ast.Expr(value=ast.Constant()):
                return
            case ast.Import() | ast.ImportFrom():
                if "noqa" in (line := module.line(statement.end_lineno or 0)):
                    self.imports[line] = None
            case ast.Expr():
                self._take(statement)
            case ast.If(test=test) if ast.unparse(test).endswith("TYPE_CHECKING"):
                return
            case (
                ast.Assign()
                | ast.AnnAssign()
                | ast.FunctionDef()
                | ast.AsyncFunctionDef()
                | ast.ClassDef()
            ):
                return
            case _:
                raise NotCarriedOver(
                    "it runs when the file is imported, and has no place in the rendered "
                    "file (main.py is a good one)"
                )

    def name(self, name: str, scope: Scope) -> ast.expr | str:
        """What stands for a name in the rendered file: another name, or an expression."""
        module = scope.module
        match scope.look_up(name):
            case (value,):
                if not is_plain(value):
                    raise NotCarriedOver(f"{name} is known only when it runs")
                return ast.parse(repr(value), mode="eval").body
            case Bound() as bound if name in scope.names:
                if is_chancy(evaluate(bound), "Chancy"):
                    raise NotCarriedOver(
                        f"it needs {name}, and the rendered Chancy is made later"
                    )
                return self.node(bound)
            case Imported() as imported:
                return self._imported(name, imported, module)
            case None:
                if name in module_names(module) or not hasattr(builtins, name):
                    if name in ("__name__", "__package__", "__file__"):
                        return name
                    raise NotCarriedOver(
                        f"{name} cannot be told: it is bound more than once, or nowhere"
                    )
                return name
            case _:
                return self._statement(name, module)

    def _imported(self, name: str, imported: Imported, module: Module) -> str:
        last = imported.path.rpartition(".")[2]
        if imported.path.startswith("chancy.") and isinstance(
            self._rendered.get(last), Imported
        ):
            return last
        line = self._import_line(name, imported, module)
        present = self._rendered.get(name)
        if present is not None:
            if isinstance(present, Imported) and present.path == imported.path:
                return name
            raise NotCarriedOver(
                f"the rendered file has another {name}: give yours a name of its own"
            )
        self.imports[line] = None
        return name

    def _import_line(self, name: str, imported: Imported, module: Module) -> str:
        match imported.statement:
            case ast.ImportFrom() as statement:
                base = absolute(statement, module.package)
                original = imported.path.rpartition(".")[2]
                workers = f"{self._house.package}.workers"
                if base == workers or base.startswith(f"{workers}."):
                    base = "." + base.removeprefix(workers).removeprefix(".")
                alias = f" as {name}" if name != original else ""
                return f"from {base} import {original}{alias}"
            case ast.Import(names=aliases):
                for each in aliases:
                    if each.asname == name:
                        return f"import {each.name} as {name}"
                    if not each.asname and each.name.partition(".")[0] == name:
                        return f"import {each.name}"
        raise AssertionError(name)

    def _statement(self, name: str, module: Module) -> str:
        if module is not self._house.module:
            imported = ast.ImportFrom(module.dotted, [ast.alias(name)], 0)
            return self._imported(
                name, Imported(f"{module.dotted}.{name}", imported), module
            )
        if name in self._rendered:
            raise NotCarriedOver(
                f"the rendered file has its own {name}: give yours another name"
            )
        statement = module.statement_of(name)
        if statement is None:
            raise NotCarriedOver(f"{name} is bound more than once")
        self._take(statement)
        return name

    def _take(self, statement: ast.stmt) -> None:
        module = self._house.module
        if statement not in self._statements:
            self._statements[statement] = None
            for node in ast.walk(statement):
                if isinstance(node, ast.Name) and node.id in module_names(module):
                    self.name(node.id, module.scope)


def _imports_a_job(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.ImportFrom) and (statement.module or "").endswith(
        ".worker"
    )


class _Inliner(ast.NodeTransformer):
    """Puts what the local names of a function stand for in their places."""

    def __init__(self, carry: _Carry, bound: Bound) -> None:
        self._carry = carry
        self._scope = bound.scope
        self._inner = {
            node.id if isinstance(node, ast.Name) else node.arg
            for node in ast.walk(bound.node)
            if (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store))
            or isinstance(node, ast.arg)
        }

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        value = evaluate(Bound(node, self._scope))
        return (
            ast.Constant(value) if isinstance(value, str) else self.generic_visit(node)
        )

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if node.id in self._inner:
            return node
        found = self._carry.name(node.id, self._scope)
        return ast.Name(found, node.ctx) if isinstance(found, str) else found


def module_names(module: Module) -> set[str]:
    """Returns the names that a module binds at its top level."""
    return {
        name
        for statement in module.tree.body
        for name, _ in bindings_of(statement, module.scope)
    }
