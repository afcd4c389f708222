"""Brings a team's hand-written code into a rendered chancy_initialization.py."""

import ast
import subprocess
from collections.abc import Iterable

from ruff import find_ruff_bin  # type: ignore[import-untyped]

from .carried import Carried, NotCarriedOver
from .house_answers import (
    LIMITS,
    MEMBERS,
    QueueFacts,
    folder_of,
    member_of,
    plugin_name,
    plugin_names,
    queue_facts,
    tags_of,
)
from .house_pattern import WORKER_OPTIONS, House, Unread
from .python_files import Backend, Bound, arguments, definition_of, dotted, evaluate

_POSITIONAL = {"Pruner": ("rule",), "Leadership": ("poll_interval", "timeout")}
_RANGES = {
    "shutdown_grace": (1, 3600),
    "heartbeat_timeout": (10, 3600),
    "leader_lease": (10, 3600),
    "poll_interval": (1, 3600),
}
_BY_HAND = "# These are not in the answers, so updates do not change them."


def adopted(rendered: str, house: House, kept: Iterable[str]) -> str:
    """Returns the rendered chancy_initialization.py with the team's code.

    Code that could not be brought over is added to `house.unread`.

    Args:
        kept: Names in the hand-written file that other modules import.
    """
    return _Adoption(rendered, house).run(kept)


class _Rendered:
    """A rendered chancy_initialization.py, its parts and the edits of it."""

    def __init__(self, text: str) -> None:
        self._source = text.encode()
        self._edits: list[tuple[int, int, str]] = []
        self.tree = ast.parse(self._source)

    def statement(self, name: str) -> ast.stmt:
        for statement in self.tree.body:
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
        statement = self.statement(name)
        assert isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value
        return statement.value

    def call_in(self, function: str, name: str) -> ast.Call:
        for node in ast.walk(self.statement(function)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == name:
                return node
        raise AssertionError(f"{function}() of the template calls no {name}")

    @staticmethod
    def queue_name(call: ast.expr) -> str:
        assert isinstance(call, ast.Call)
        return str(ast.literal_eval(call.args[0]))

    @staticmethod
    def job_name(call: ast.expr) -> str:
        assert isinstance(call, ast.Call)
        return ast.unparse(call.keywords[0].value)

    def offset(self, node: ast.expr | ast.stmt, *, end: bool = False) -> int:
        """The offset in bytes where a node begins or ends."""
        line = (node.end_lineno if end else node.lineno) or 0
        column = (node.end_col_offset if end else node.col_offset) or 0
        lines = self._source.splitlines(keepends=True)
        return sum(map(len, lines[: line - 1])) + column

    def segment(self, node: ast.expr) -> str:
        return self._source[self.offset(node) : self.offset(node, end=True)].decode()

    def replace(self, node: ast.expr | ast.stmt, text: str) -> None:
        """Replaces a node, unless the text is equivalent."""
        if text and ast.dump(ast.parse(text)) == ast.dump(ast.parse(ast.unparse(node))):
            return
        self._edits.append((self.offset(node), self.offset(node, end=True), text))

    def insert(self, offset: int, text: str) -> None:
        """Inserts a text at an offset in bytes."""
        self._edits.append((offset, offset, text))

    def edited(self) -> str:
        """Returns the file after all edits."""
        source = self._source
        for start, end, text in sorted(self._edits, key=lambda e: e[:2], reverse=True):
            source = source[:start] + text.encode() + source[end:]
        return source.decode()


class _Adoption:
    """The steps from a rendered file to an adopted one."""

    def __init__(self, rendered: str, house: House) -> None:
        self._house = house
        self._file = _Rendered(rendered)
        self._carry = Carried(self._file.tree, house)
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
        self._insert_what_is_needed()
        text = tidied(self._file.edited(), house.module.backend)
        prove(text, house)
        return text

    def _not_carried(self, what: str, problem: NotCarriedOver) -> None:
        self._house.unread.append(
            Unread(
                self._house.module.path.name,
                what,
                str(problem),
                "define it in this file, or remove it, adopt, and add it again",
            )
        )

    # --- the parts of the file -------------------------------------------------------

    def _constants(self) -> None:
        house = self._house
        sizes = {
            "min": ("CHANCY_MIN_POOL_SIZE", 1),
            "max": ("CHANCY_MAX_POOL_SIZE", 10),
        }
        for which, (constant, default) in sizes.items():
            given = house.options.get(f"{which}_connection_pool_size")
            text = self._carry.value(given) if given else str(default)
            self._file.replace(self._file.assigned(constant), text)
        self._file.replace(self._file.assigned("DATABASE_SECRET"), repr(house.secret))

    def _queues(self) -> None:
        texts = []
        for facts in queue_facts(self._house):
            keywords = self._answered(facts) | {
                key: self._carry.value(each) for key, each in facts.by_hand.items()
            }
            if "executor" in facts.by_hand and (
                member := member_of(facts.by_hand["executor"])
            ):
                keywords["executor"] = f"Chancy.Executor.{member}"
            # The template writes eager_polling last, too.
            keywords["eager_polling"] = keywords.pop("eager_polling", "True")
            texts.append(_call("Queue", [repr(facts.name)], keywords))
        self._file.replace(self._file.assigned("QUEUES"), _list(texts))

    @staticmethod
    def _answered(facts: QueueFacts) -> dict[str, str]:
        """The arguments that the template renders for a queue."""
        member = {kind: name for name, kind in MEMBERS.items()}[
            facts.answer["executor"]
        ]
        keywords = {"executor": f"Chancy.Executor.{member}"}
        for key in ("concurrency", *LIMITS):
            if key in facts.answer:
                keywords[key] = str(facts.answer[key])
        if "tags" in facts.answer:
            tags = ", ".join(f'"^{tag}$"' for tag in facts.answer["tags"])
            keywords["tags"] = f"{{{tags}}}"
        return keywords

    def _cron_jobs(self) -> None:
        """Cron jobs of the answers stay in the template's list; the others are added below."""
        written = self._file.assigned("CRON_JOBS")
        assert isinstance(written, ast.List)
        texts = {self._file.job_name(each): "" for each in written.elts}
        by_hand = []
        for each in self._house.schedules:
            text = _call(
                "CronJob",
                [],
                {
                    "job": self._carry.text(each.job),
                    "cron": repr(each.cron),
                    "timezone": repr(each.timezone),
                },
            )
            if texts.get(folder := folder_of(each, self._house)) == "":
                texts[folder] = text
            else:
                by_hand.append(text)
        self._file.replace(written, _list(texts.values()))
        if by_hand:
            end = self._file.offset(written, end=True)
            self._file.insert(end, f"\n\n{_BY_HAND}\nCRON_JOBS += {_list(by_hand)}")

    def _chancy(self) -> None:
        call = self._file.call_in("create_chancy", "Chancy")
        keywords = {str(each.arg): each.value for each in call.keywords}
        options = self._house.options
        self._file.replace(keywords["prefix"], repr(self._house.prefix))
        if "log" in options and evaluate(options["log"]) is not None:
            end = self._file.offset(keywords["settings"], end=True)
            self._file.insert(end, f",\nlog={self._carry.text(options['log'])}")
        if (
            "notifications" in options
            and evaluate(options["notifications"]) is not True
        ):
            self._house.notes.append(
                "notifications=False is left out: the rendered workers need LISTEN."
            )
        if "poll_reconnect_timeout" in options:
            self._house.notes.append(
                "poll_reconnect_timeout is left out: the rendered pool tries forever."
            )
        self._plugins(keywords["plugins"])

    def _plugins(self, written: ast.expr) -> None:
        assert isinstance(written, ast.List)
        texts = {
            ast.unparse(each).partition("(")[0]: self._file.segment(each)
            for each in written.elts
        }
        wanted = set(plugin_names(self._house))
        replaced = {_replaced_by(plugin) for plugin in self._house.plugins} - {""}
        for name in sorted(replaced):
            self._house.notes.append(
                f"Your own {name} stays and replaces the template's."
            )
        if "Cron" not in wanted | replaced:
            self._house.notes.append(
                "The template adds the plugin Cron, which needs a table: run "
                f"python -m {self._house.package}.workers migrate before the first start."
            )
        for name in texts.keys() - wanted - ({"Cron"} - replaced):
            del texts[name]
        for plugin in self._house.plugins:
            name = plugin_name(plugin)
            given = arguments(plugin)
            if given is None:
                raise NotCarriedOver(
                    f"{plugin.text}: its arguments cannot be determined statically"
                )
            if name in ("Pruner", "Recovery", "Cron", "Leadership"):
                texts[name] = self._standard(name, *given)
            elif name != "SentryPlugin":
                texts[name or plugin.text] = self._carry.text(plugin)
        self._file.replace(written, _list(texts.values()))

    def _standard(
        self, name: str, positional: list[Bound], named: dict[str, Bound]
    ) -> str:
        """One of the template's four standard plugins; their timing goes into SETTINGS."""
        named = {
            **dict(zip(_POSITIONAL.get(name, ()), positional, strict=False)),
            **named,
        }
        interval = named.pop("poll_interval", None)
        if timeout := named.pop("timeout", None):
            self._set("leader_lease", timeout)
        if interval and name != "Leadership":
            self._set("poll_interval", interval)
        elif interval:
            self._house.notes.append(
                "Leadership(poll_interval=…) is left out: the rendered one polls twice in a "
                "lease."
            )
        rule = named.pop("rule", None)
        keywords = {key: self._carry.text(each) for key, each in named.items()}
        return _call(name, [self._carry.text(rule)] if rule else [], keywords)

    def _set(self, name: str, bound: Bound) -> None:
        value = evaluate(bound)
        if type(value) is not int:
            raise NotCarriedOver(f"the value of {bound.text} is known only at run time")
        if name in self._settings and self._settings[name] != value:
            value = min(value, self._settings[name])
            self._house.notes.append(
                f"The template has one {name} for all plugins: it is set to the lowest, "
                f"{value}."
            )
        self._settings[name] = value

    def _workers(self) -> None:
        function = self._file.statement("initialize_workers")
        calls = [
            node
            for node in ast.walk(function)
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "Worker"
        ]
        calls.sort(key=lambda node: node.lineno)
        for call, worker in zip(calls, self._house.workers, strict=True):
            given = arguments(worker)
            assert given
            keywords = {"register_signal_handlers": "False"} | {
                name: self._carry.value(given[1][name])
                for name in WORKER_OPTIONS
                if name in given[1]
            }
            if tags_of(worker) == []:
                keywords.pop("tags", None)
            self._file.replace(call, _call("Worker", ["chancy"], keywords))

    def _write_settings(self) -> None:
        for name, value in self._settings.items():
            lowest, highest = _RANGES[name]
            if not lowest <= value <= highest:
                raise NotCarriedOver(
                    f"{name} is {value}, but must be from {lowest} to {highest}"
                )
        if self._settings:
            texts = {name: str(value) for name, value in self._settings.items()}
            self._file.replace(
                self._file.assigned("SETTINGS"), _call("Settings", [], texts)
            )

    def _insert_what_is_needed(self) -> None:
        """Inserts the needed imports and statements of the hand-written file."""
        if statements := self._carry.statements():
            first = self._file.offset(self._file.statement("DATABASE_SECRET"))
            self._file.insert(first, "\n\n".join(statements) + "\n\n")
        if self._carry.imports:
            relative = next(
                node
                for node in self._file.tree.body
                if isinstance(node, ast.ImportFrom) and node.level
            )
            lines = "\n".join(self._carry.imports) + "\n"
            self._file.insert(self._file.offset(relative), lines)


def _replaced_by(plugin: Bound) -> str:
    """Chancy's plugin that is the base of a team's plugin and is replaced by it."""
    match definition_of(plugin):
        case (ast.ClassDef(bases=bases), module):
            for base in bases:
                path = dotted(base, module.scope)
                if path.startswith("chancy.plugins."):
                    return path.rpartition(".")[2]
    return ""


def _call(name: str, positional: list[str], keywords: dict[str, str]) -> str:
    """A call with each argument on its own line."""
    parts = [*positional, *(f"{key}={text}" for key, text in keywords.items())]
    return (
        f"{name}(\n{''.join(f'{part},{chr(10)}' for part in parts)})"
        if parts
        else f"{name}()"
    )


def _list(items: Iterable[str]) -> str:
    return "[\n" + "".join(f"{item},\n" for item in items) + "]"


def tidied(text: str, backend: Backend, *, keep_unused: bool = False) -> str:
    """Returns a file in the template's formatting, without unused imports."""
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


def prove(text: str, house: House) -> None:
    """Makes sure that the file declares the same as the hand-written one, and binds all names.

    Raises:
        AssertionError: It does not, which is a bug in this program.
    """
    _ruff("check", "--select=F821,F811", text=text)
    rendered = _Rendered(text)
    queues = rendered.assigned("QUEUES")
    assert isinstance(queues, ast.List)
    assert [rendered.queue_name(each) for each in queues.elts] == [
        facts.name for facts in queue_facts(house)
    ]
    assert sorted(
        [ast.literal_eval(each.value) for each in call.keywords[1:]]
        for call in ast.walk(rendered.tree)
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "CronJob"
    ) == sorted([schedule.cron, schedule.timezone] for schedule in house.schedules)
    keywords = {
        each.arg: each.value
        for each in rendered.call_in("create_chancy", "Chancy").keywords
    }
    assert ast.literal_eval(keywords["prefix"]) == house.prefix
    assert ast.literal_eval(rendered.assigned("DATABASE_SECRET")) == house.secret
