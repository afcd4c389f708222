"""A bad answer gets one line with the value, the reason and the way out; nothing is written."""

import random
import re
import symtable
import sys
import zoneinfo
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from croniter import (  # type: ignore[import-untyped]
    CroniterBadDateError,
    croniter,
)

from .support import COPIER, TEMPLATE, commit, copy, refusal, run

URL = "postgresql://user:hunter2@host/db"
LIBPQ = "host=db.example.com user=app password=hunter2"
# Texts that would break out of the quotes, the line or the file into which an answer is rendered.
HOSTILE = [
    *('"', "'", "\\", "\n", "\r", "\t", "\0", "{{ 7*7 }}", "{% raw %}", "{# #}"),
    *("$(touch x)", "`touch x`", "; rm -rf x", " && x", "|x", "../x", "ü", "\u2028"),
]
FORTY = "a" * 40


@pytest.fixture
def problems(macros_of: Callable[[str], Any]) -> Any:
    return macros_of("problems")


def data_file(folder: Path, answers: dict[str, object]) -> str:
    (folder / "answers.yml").write_text(yaml.safe_dump(answers, allow_unicode=True))
    return "--data-file=answers.yml"


def assert_says(line: str, words: str) -> None:
    assert line.startswith("ValueError: Validation error for question '")
    for part in words.split(" … "):
        assert part in line


# ---------------------------------------------------------------- through `copier copy`


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("service=Billing", "'service' … \"Billing\" … snake_case … write billing"),
        ("service=my-billing", '"my-billing" … snake_case … write my_billing'),
        ("service=bill ing", '"bill ing" … snake_case … write bill_ing'),
        ("service=_billing", '"_billing" … a letter first … write billing'),
        ("service=2billing", '"2billing" … a letter first … write billing'),
        ("service={{ 7*7 }}", '"{{ 7*7 }}" … snake_case … write'),
        ("service=", "'service' … \"\" … snake_case … write billing"),
        ("service=class", '"class" … Python keyword … such as class_jobs'),
        ("service=chancy", '"chancy" … default prefix … write chancy_service'),
        ("service=workers", '"workers" … folder … write workers_service'),
        ("service=tests", '"tests" … folder … write tests_service'),
        ("service=observability", "would hide): write observability_service"),
        ("service=secret_values", "would hide): write secret_values_service"),
        (f"service={FORTY}", "'prefix' … 41 characters … at most 33 … -d prefix=a"),
        (f"service={FORTY}a", "'service' … 41 characters … at most 40 … -d service=a"),
        ("package=app.class", '"app.class" … keyword … rename that folder'),
        ("package=app.shop", '"app.shop" … import path of billing … app.billing'),
        (
            "main=/srv/main.py",
            '"/srv/main.py" … relative to … such as main.py or ../ma',
        ),
        ("main=./main.py", '"./main.py" … not the path of a Python file … main.py'),
        ("main=main", '"main" … not the path of a Python file … such as main.py'),
        ("main=a/../../x.py", '"a/../../x.py" … not the path … such as main.py'),
        ("main=../../../x.py", '"../../../x.py" … not below the backend … ../main.py'),
        ("main=server.py", '"server.py" is not a file in app/billing: write … main'),
        ("app=my-app", '"my-app" is not the name of an app: write … such as app'),
        ("prefix=billing", '"billing" … underscore at the end … as billing_'),
        ("prefix=chancy_", "\"chancy_\" … Chancy's own default … service's name"),
        (
            "get_secret_value=a.None",
            '"a.None" … not the import path … app.secret_values',
        ),
        (
            "database_secret=$(touch x)",
            '"$(touch x)" … not a secret\'s name … never the URL',
        ),
        ("jobs=send_digest", '"send_digest" is not a list … as [send_digest]'),
        ("jobs=", "'jobs' … is not a list … such as [send_digest]"),
        ("queues=default", '"default" is not a list … as [{name: default}]'),
        ("workers={tags: []}", "\"{'tags': []}\" is not a list … as [{tags: []}]"),
        ("sentry=nope", "'sentry' … \"nope\" … neither yes nor no … write true or"),
        ("runtime=pypi", "'scope' … runtime \"pypi\" is unknown … template or index"),
        ("runtime=index", "'runtime_index' … \"\" is not the URL … write one such as"),
        ("deploy=k8s", '"k8s" is unknown: write none or azure-container-apps'),
        (
            "pooler_connections=20",
            "'deploy' … used with deploy only … or leave pooler_connections out",
        ),
        ("pooler_connections=many", '"many" is not a whole number … such as 15'),
        (
            "runtime_index=http://x",
            "'runtime' … runtime=index only … or leave runtime_index out",
        ),
        ("job=[send_mail]", '"job" is not a question … the names are scope, … jobs'),
        ("_job=x", '"_job" is not a question … the names are scope, … jobs'),
        ("job_list=x", "job_list is computed … leave it out"),
        ("queue_list=[]", "queue_list is computed … leave it out"),
        ("service_root=x", "service_root is computed … leave it out"),
        ("rendered_again=true", "rendered_again is computed … leave it out"),
        ("checked_before=true", "checked_before is computed … leave it out"),
        ("main_was_there=true", "main_was_there is computed … leave it out"),
        ("observability=x.y", "observability is computed … leave it out"),
        ("deploy_place={}", "deploy_place is computed … leave it out"),
    ],
)
def test_a_bad_answer_on_the_command_line_is_refused_in_one_line(
    answer: str, words: str, tmp_path: Path
) -> None:
    assert_says(refusal(tmp_path, "-d", answer), words)


@pytest.mark.parametrize("existing", [["models.py"], ["server.py", "app.py"]])
def test_the_answer_main_is_required_if_file_names_do_not_show_the_app(
    existing: list[str], tmp_path: Path
) -> None:
    (tmp_path / "app" / "billing").mkdir(parents=True)
    for name in existing:
        (tmp_path / "app" / "billing" / name).touch()

    names = ", ".join(sorted(existing))
    words = f"'main' … billing has \"{names}\" and no main.py: write the … main.py for"
    assert_says(refusal(tmp_path), words)


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        (
            {"service": ["billing"]},
            "service \"['billing']\" is not a text … leave service out",
        ),
        ({"service": "billing\n"}, '"billing\\n" … snake_case … write billing'),
        ({"prefix": ["a_"]}, "prefix \"['a_']\" is not a text … leave prefix out"),
        ({"workflow": None}, 'workflow "None" is not an answer … leave workflow out'),
        (
            {"scope": "backend", "get_secret_value": "app.x.y"},
            "get_secret_value is fixed in a new backend … leave it out",
        ),
        ({"jobs": "send_digest"}, '"send_digest" is not a list … [send_digest]'),
        ({"jobs": ["a", "b", "a"]}, '"a" appears twice … name of its own'),
        ({"jobs": [{"name": "a", "shedule": "x"}]}, 'unknown key "shedule" … schedule'),
        (
            {"jobs": [{"name": "a", "queue": "mail"}]},
            'the job a … "mail" … not declared … add {name: mail}',
        ),
        (
            {"jobs": [{"name": "a", "schedule": "0 24 * * *"}]},
            '"0 24 * * *" … hour "24" … 0 to 23 … such as "0 7 * * mon-fri"',
        ),
        (
            {"jobs": [{"name": "a", "schedule": "@daily", "timezone": "London Time"}]},
            'a: timezone "London Time" … Area/City … such as Europe/London',
        ),
        ({"queues": [{"name": "q", "size": 1}]}, 'q has the unknown key "size"'),
        ({"queues": ["q", "q"]}, '"q" appears twice … name of its own'),
        (
            {"queues": [{"name": "q", "concurrency": True}]},
            'q: concurrency "True" … whole number … leave concurrency out',
        ),
        (
            {"queues": [{"name": "q", "rate_limit": 1}]},
            "q has a rate_limit and no rate_limit_window … rate_limit_window: 60",
        ),
        (
            {"queues": [{"name": "q", "tags": ["x"]}]},
            "'workers' … no worker takes the tag x of the queue q: give it … take it out",
        ),
        (
            {
                "queues": [{"name": "q", "tags": ["a", "b"]}],
                "workers": [{"tags": ["a"]}],
            },
            "'workers' … no worker takes the tag b of the queue q: give it … take it out",
        ),
        ({"workers": []}, "[] means that no worker runs the jobs … [{tags: []}]"),
        ({"workers": [{"tag": "x"}]}, 'unknown key "tag": the keys are tags, process'),
        ({"run_workers": "api"}, '"api" is unknown: write in_api, own_process or both'),
        (
            {"run_workers": "both", "workers": [{"process": "web"}]},
            'process "web" is unknown: write api or own, or leave process out',
        ),
        (
            {"workers": [{"process": "own"}]},
            'process "own" of a worker is used with run_workers=both only: answer run_w',
        ),
        (
            {
                "run_workers": "both",
                "workers": [{"process": "own"}, {"process": "own"}],
            },
            "every worker has process: own, … answer run_workers=own_process, or add",
        ),
        (
            {"run_workers": "both", "workers": [{"process": "api"}]},
            "every worker has process: api, … answer run_workers=in_api, or add",
        ),
        (
            {"runtime": ["index"]},
            "runtime \"['index']\" is not a text … leave runtime out",
        ),
        (
            {"deploy": "azure-container-apps", "pooler_connections": 8},
            'pooler_connections "8" is too few … need 9 … Pool Size) and write that',
        ),
        (
            {"runtime": "index", "runtime_index": "packages"},
            "'runtime_index' … \"packages\" is not the URL of an index: write one such as",
        ),
        ({"metrics": "nope"}, "'metrics' … \"nope\" … write true or false"),
    ],
)
def test_a_bad_answer_in_a_data_file_is_refused_in_one_line(
    answers: dict[str, object], words: str, tmp_path: Path
) -> None:
    assert_says(refusal(tmp_path, data_file(tmp_path, answers)), words)


@pytest.mark.parametrize(
    "answers",
    [
        {"service": URL},
        {"package": URL},
        {"main": URL},
        {"app": URL},
        {"prefix": LIBPQ},
        {"get_secret_value": URL},
        {"database_secret": LIBPQ},
        {"jobs": [{"name": URL}]},
        {"queues": [{"name": "q", LIBPQ: URL}]},
        {"workers": URL},
        {"sentry": URL},
        {"runtime": URL},
        {"runtime": "index", "runtime_index": "https://me:hunter2@example.com/simple"},
        {"runtime": "index", "runtime_index": "https://example.com/?token=hunter2"},
        {"runtime": "index", "runtime_index": URL},
        {"job_list": URL},
        {URL: LIBPQ},
    ],
    ids=str,
)
def test_a_password_is_refused_and_not_shown(
    answers: dict[str, object], tmp_path: Path
) -> None:
    line = refusal(tmp_path, data_file(tmp_path, answers))

    assert_says(line, "job_list" if "job_list" in answers else "not shown … : ")


@pytest.mark.parametrize("arguments", [[], ["-d", "service=billing"]])
def test_a_folder_that_is_not_a_valid_package_name_is_refused_with_a_valid_name(
    arguments: list[str], tmp_path: Path
) -> None:
    line = refusal(tmp_path, *arguments, to="app/my-billing")

    assert_says(line, 'the folder "my-billing" … Python package … one named my_billing')


@pytest.mark.parametrize(
    ("folder", "words"),
    [
        ("app/class", 'the folder "class" … Python keyword … one named class_jobs'),
        ("app/observability", "would hide the module … named observability_service"),
        ("app/secret_values", "would hide the module … named secret_values_service"),
        ("app/a=b", "the given value for the folder (not shown … one named a_b"),
    ],
)
def test_a_folder_with_a_reserved_name_is_refused(
    folder: str, words: str, tmp_path: Path
) -> None:
    assert_says(refusal(tmp_path, "-d", "service=billing", to=folder), words)


@pytest.mark.parametrize("there", ["pyproject.toml", ".git", ".git/HEAD"])
def test_a_service_is_not_rendered_into_the_root_of_a_backend(
    there: str, tmp_path: Path
) -> None:
    (tmp_path / "shop" / there).parent.mkdir(parents=True)
    (tmp_path / "shop" / there).touch()

    line = refusal(tmp_path, to="shop")

    assert_says(line, f"shop/{there} exists … root of a backend … app/billing")


def test_a_package_that_cannot_be_imported_is_refused(tmp_path: Path) -> None:
    line = refusal(tmp_path, to="my-app/billing")

    assert_says(line, "'package' … \"my-app.billing\" … import path … app.billing")


@pytest.mark.parametrize(
    ("there", "way_out"),
    [
        ("workers/by_hand.py", "git mv billing/workers billing/workers_by_hand"),
        ("workers.py", "git mv billing/workers.py billing/workers_by_hand.py"),
        ("workers/jobs/deep/w.py", "git mv billing/workers billing/workers_by_hand"),
        ("workers/jobs/data.yml", "git mv billing/workers billing/workers_by_hand"),
        ("workers/chancy_initialization.py", "git mv billing/workers billing"),
    ],
)
@pytest.mark.parametrize("answers", ["", "_src_path: gh:team/other\nservice: x\n"])
def test_workers_written_by_hand_are_left_as_they_are(
    there: str, way_out: str, answers: str, tmp_path: Path
) -> None:
    folder = tmp_path / "[group] a" / "app" / "billing"
    (folder / there).parent.mkdir(parents=True)
    (folder / there).write_text("by hand\n")
    if answers:
        (folder / ".copier-answers.yml").write_text(answers)

    line = refusal(tmp_path, to="[group] a/app/billing")

    assert_says(line, f"exists already … did not render it … move it away ({way_out}")
    assert ("chancy-workers adopt" in line) is ("chancy_initialization" in there)


def test_links_and_folders_in_the_way_are_left_as_they_are(tmp_path: Path) -> None:
    folder = tmp_path / "app" / "billing"
    folder.mkdir(parents=True)
    (folder / "workers").symlink_to("nowhere")
    assert_says(refusal(tmp_path), "workers exists already … did not render it")
    assert (folder / "workers").is_symlink()

    (folder / "workers").unlink()
    (folder / "main.py").mkdir()
    assert_says(refusal(tmp_path), "billing/main.py is a folder: move it away")


def test_a_pycache_folder_does_not_prevent_a_copy(tmp_path: Path) -> None:
    cache = tmp_path / "app" / "billing" / "workers" / "__pycache__"
    cache.mkdir(parents=True)
    (cache / "worker.cpython-311.pyc").touch()

    copy("app/billing", cwd=tmp_path)


def test_the_answers_to_another_template_are_left_as_they_are(tmp_path: Path) -> None:
    folder = tmp_path / "app" / "billing"
    folder.mkdir(parents=True)
    (folder / ".copier-answers.yml").write_text("_src_path: gh:team/other\n")

    line = refusal(tmp_path)
    assert_says(line, "answers to another template … -a .copier-answers.workers.yml")

    copy("app/billing", "-a", ".copier-answers.workers.yml", cwd=tmp_path)
    kept = (folder / ".copier-answers.yml").read_text()
    assert kept == "_src_path: gh:team/other\n"


@pytest.mark.parametrize(
    "there",
    ["pyproject.toml", "README.md", "app/x/main.py", "app", ".copier-answers.yml"],
)
def test_a_backend_is_rendered_into_an_empty_folder_only(
    there: str, tmp_path: Path
) -> None:
    (tmp_path / "shop" / there).parent.mkdir(parents=True)
    (tmp_path / "shop" / there).write_text("by: hand\n")

    line = refusal(tmp_path, "-d", "scope=backend", to="shop")

    assert_says(line, f"shop/{there} exists already … empty folder … -d scope=service")


def test_with_a_short_prefix_a_service_s_name_may_have_40_characters(
    tmp_path: Path,
) -> None:
    copy(
        "shop",
        *("-d", "scope=backend", "-d", f"service={FORTY}", "-d", "prefix=short_"),
        cwd=tmp_path,
    )

    ruff = [sys.executable, "-m", "ruff"]
    run(*ruff, "format", "--no-cache", "--check", ".", cwd=tmp_path / "shop")


def test_an_answer_to_a_question_that_a_release_removed_does_not_stop_an_update(
    released: Path, tmp_path: Path
) -> None:
    copy("app/billing", "--vcs-ref=v0.1.0", cwd=tmp_path, template=released)
    answers = tmp_path / "app" / "billing" / ".copier-answers.yml"
    written = re.sub(r"_fingerprint: .*\n", "", answers.read_text())
    answers.write_text(written + "taken_away: true\n")
    commit(tmp_path)

    run(*COPIER, "update", "--trust", "--defaults", "app/billing", cwd=tmp_path)

    assert "_commit: v0.1.1" in answers.read_text()
    assert "taken_away" not in answers.read_text()


# ------------------------------------------------------------------- through the macros


FIELDS: dict[str, tuple[str, Callable[[Any, Any], str]]] = {
    "service": ("billing", lambda of, x: of.service_problem(x)),
    "package": ("app.billing", lambda of, x: of.package_problem(x, "/app/billing")),
    "main": ("main.py", lambda of, x: of.main_problem(x)),
    "app": ("app", lambda of, x: of.app_problem(x)),
    "prefix": ("billing_", lambda of, x: of.prefix_problem(x)),
    "get_secret_value": ("app.get", lambda of, x: of.get_secret_value_problem(x)),
    "database_secret": ("A-B", lambda of, x: of.database_secret_problem(x, "service")),
    "runtime_index": ("http://a/b", lambda of, x: of.runtime_index_problem(x)),
    "job": ("send", lambda of, x: of.jobs_problem([x])),
    "job.name": ("send", lambda of, x: of.jobs_problem([{"name": x}])),
    "job.queue": ("mail", lambda of, x: of.jobs_problem([{"name": "a", "queue": x}])),
    "job.schedule": (
        "0 7 * * mon",
        lambda of, x: of.jobs_problem([{"name": "a", "schedule": x}]),
    ),
    "job.timezone": (
        "Europe/London",
        lambda of, x: of.jobs_problem(
            [{"name": "a", "schedule": "@daily", "timezone": x}]
        ),
    ),
    "queue": ("mail", lambda of, x: of.queues_problem([x], [])),
    "queue.name": ("mail", lambda of, x: of.queues_problem([{"name": x}], [])),
    "queue.executor": (
        "thread",
        lambda of, x: of.queues_problem([{"name": "q", "executor": x}], []),
    ),
    "queue.tag": (
        "mail",
        lambda of, x: of.queues_problem([{"name": "q", "tags": [x]}], []),
    ),
    "worker.tag": ("mail", lambda of, x: of.workers_problem([{"tags": [x]}], [])),
}


@pytest.mark.parametrize("field", FIELDS)
def test_no_accepted_text_breaks_out_of_the_place_it_is_rendered_into(
    field: str, problems: Any
) -> None:
    good, problem = FIELDS[field]
    assert not problem(problems, good)

    for hostile in HOSTILE:
        if (field, hostile) == ("main", "../x"):
            continue  # The app may be above the service's folder.
        for value in (good + hostile, hostile + good, hostile):
            message = problem(problems, value).strip()
            assert message.isprintable() and " write " in message, (value, message)


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("secret", [URL, LIBPQ, "PASSWORD hunter2"])
def test_no_field_accepts_or_shows_a_password(
    field: str, secret: str, problems: Any
) -> None:
    message = FIELDS[field][1](problems, secret)

    assert "not shown" in message and ": write " in message
    assert "hunter2" not in message


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["chancy_instance"], "rendered code uses … write run_chancy_instance"),
        (["tests"], "rendered code uses itself … write run_tests"),
        (["test_mail"], "pytest would collect the job as a … write run_test_mail"),
        (["SendDigest"], '"SendDigest" … snake_case … write senddigest'),
        (["send-digest"], '"send-digest" … snake_case … write send_digest'),
        (["lambda"], '"lambda" … keyword … such as lambda_jobs'),
        ([FORTY + "a"], "41 characters … at most 40"),
        ([""], '"" … snake_case … write'),
        ([7], '"7" is not a job … write a name'),
        ([None], '"None" is not a job … write a name'),
        ([{"queue": "x"}], "is not a job … {name: send_digest"),
        ([{"name": ["a"]}], "is not a text … write a name"),
        (["a", {"name": "a"}], '"a" appears twice'),
        ({"name": "a"}, "is not a list … such as [send_digest]"),
        ({"a"}, "is not a list … such as [send_digest]"),
        ([{"name": "a", "timezone": "UTC"}], "timezone and no schedule: add … or take"),
        ([{"name": "a", "schedule": None}], "schedule … not a text: write a cron"),
    ],
)
def test_a_bad_job_is_refused_with_a_way_out(
    names: object, words: str, problems: Any
) -> None:
    message = problems.jobs_problem(names)

    for part in words.split(" … "):
        assert part in message


@pytest.mark.parametrize(
    "url",
    [
        *("https://packages.example.com/simple", "http://10.0.0.1:8080/a/b_c/+simple/"),
        *("http://127.0.0.1:1/", "http://[::1]:80/simple", "https://x-y.example"),
    ],
)
def test_the_url_of_an_index_is_accepted(url: str, problems: Any) -> None:
    assert not problems.runtime_index_problem(url)


@pytest.mark.parametrize("key", ["concurrency", "rate_limit", "rate_limit_window"])
def test_a_queue_s_numbers_must_be_whole_and_above_zero(
    key: str, problems: Any
) -> None:
    queue = {"name": "q", "rate_limit": 10, "rate_limit_window": 60}
    assert not problems.queues_problem([{**queue, key: 1}], [])

    for value in (0, -1, 1.5, True, False, "10", None, [1], 2**31):
        message = problems.queues_problem([{**queue, key: value}], [])
        assert f'q: {key} "{value}" is not a whole number' in message
        assert f"write one, or leave {key} out" in message


@pytest.mark.parametrize(
    ("queue", "words"),
    [
        ({"name": "q", "rate_limit_window": 1}, "q has a … no rate_limit: add … take"),
        ({"name": "q", "tags": "x"}, 'q: tags "x" is not a list: write … as [reports]'),
        ({"name": "q", "tags": ["x", "x"]}, "tags … twice: write each once"),
        ({"name": "Q"}, '"Q" is not a queue\'s name … such as default'),
        ({"nme": "q"}, "is not a queue: write {name: default"),
        (["q"], "is not a queue: write {name: default"),
    ],
)
def test_a_bad_queue_is_refused_with_a_way_out(
    queue: object, words: str, problems: Any
) -> None:
    message = problems.queues_problem([queue], [])

    for part in words.split(" … "):
        assert part in message


def test_following_the_way_out_leads_to_a_valid_name(problems: Any) -> None:
    names = [*problems.names_in_use, *problems.keywords, *HOSTILE, "chancy_", "Test"]
    for name in names:
        for problem in (lambda x: problems.jobs_problem([x]), problems.service_problem):
            tried = [name]
            while message := problem(tried[-1]):
                found = re.search(r"write (?:\D* such as )?(\w+)", message)
                assert found and len(tried) < 4, (tried, message)
                tried.append(found[1])


# ------------------------------------------------------------------ schedules and zones


MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec".split()
WEEKDAYS = "sun mon tue wed thu fri sat".split()


RANGES: list[tuple[int, int, list[str]]] = [
    *((0, 59, []), (0, 23, []), (1, 31, []), (1, 12, MONTHS), (0, 7, WEEKDAYS))
]


def random_schedule(chance: random.Random) -> str:
    """Five fields, two of them in forms of cron, of croniter, or guessed ones."""

    def part(low: int, high: int, words: list[str]) -> str:
        a, b = chance.choices([*map(str, range(low, high + 2)), *words], k=2)
        step = chance.randint(0, high + 1)
        usual = [a, a.upper(), f"{a}-{b}", f"*/{step}", f"{a}-{b}/{step}", f"{a}#2"]
        odd = [
            "l",
            "L5",
            f"l{a}",
            f"{b}#{step}",
            f"{a}/{step}",
            "*",
            "?",
            "r",
            "15w",
            "",
        ]
        return chance.choice(chance.choice([usual, odd]))

    fields = [chance.choice(["*", str(low), str(high)]) for low, high, _ in RANGES]
    for index in chance.sample(range(5), k=2):
        parts = [part(*RANGES[index]) for _ in range(chance.choice([1, 1, 2]))]
        fields[index] = ",".join(parts)
    return " ".join(fields)


def test_every_accepted_schedule_can_run(problems: Any) -> None:
    chance = random.Random(20260131)
    schedules = [random_schedule(chance) for _ in range(4000)]
    taken = [each for each in schedules if not problems.schedule_problem(each)]

    assert len(taken) > 300
    for schedule in taken:
        assert croniter.is_valid(schedule), schedule
        try:
            croniter(schedule, datetime(2026, 1, 1)).get_next(datetime)
        except CroniterBadDateError:
            # A date such as 31 February, where each field alone is valid.
            assert not croniter.is_valid(schedule, strict=True), schedule


@pytest.mark.parametrize(
    "schedule",
    [
        *("* * * * *", "*/5 * * * *", "0 7 * * mon-fri", "0 7 * * MON-FRI"),
        *("59 23 31 12 7", "0 0 1,15 * *", "0-30/10 8-18 * * 1-5", "0 0 * jan,Jul *"),
        *("0 0 l * *", "0 0 L * *", "0 0 l,15 * *", "0 9 * * fri#2", "0 9 * * 1#1,3#3"),
        *("0 9 * * l5", "0 9 * * L5", "0 9 * * 0-7", "0 9 * feb-oct/2 sat,sun"),
        *("0 0 29 2 *", "00 07 * * *", "0 0 1-31/2 * *", "@daily", "@Daily", "@hourly"),
        *("@midnight", "@weekly", "@monthly", "@yearly", "@annually"),
        *("0 0 29 2 *", "0 0 l 2 *", "0 0 31 2 mon", "0 0 31 2-12/2 *", "0 0 1,31 2 *"),
        *("0 0 31 feb,mar *", "0 0 */31 2 *", "0 0 31 */5 *"),
    ],
)
def test_a_usual_schedule_is_accepted(schedule: str, problems: Any) -> None:
    assert croniter.is_valid(schedule)
    assert not problems.schedule_problem(schedule)


@pytest.mark.parametrize(
    ("schedule", "reason"),
    [
        *(("* * * *", "five fields"), ("", "five fields"), ("@often", "five fields")),
        *(("60 * * * *", 'minute "60"'), ("*/0 * * * *", 'step of minute "*/0" is')),
        *(("* 24 * * *", 'hour "24"'), ("* -1 * * *", 'hour "-1"')),
        *(("* * 0 * *", 'day "0"'), ("* * 32 * *", 'day "32"')),
        *(("* * * 13 *", 'month "13"'), ("* * * 0 *", "month"), ("* * * mai *", "mai")),
        *(("* * * * 8", 'weekday "8"'), ("* * * * fri#6", "fri#6"), ("x * * * *", "x")),
        *(("* * * * 1,5#2", "mixes plain weekdays"), ("1,,2 * * * *", 'minute ""')),
        *(
            ("1- * * * *", 'minute "1-"'),
            ("1-2-3 * * * *", "1-2-3"),
            ("* l * * *", "l"),
        ),
        *(
            ("5/ * * * *", "the step of"),
            ("5-8/-2 * * * *", "step"),
            ("* * * * l8", "l8"),
        ),
    ],
)
def test_a_schedule_that_croniter_refuses_is_refused(
    schedule: str, reason: str, problems: Any
) -> None:
    assert not croniter.is_valid(schedule)
    message = problems.schedule_problem(schedule)
    assert reason in message and "write " in message
    assert '"0 7 * * mon-fri"' in message


@pytest.mark.parametrize(
    ("schedule", "reason"),
    [
        ("0 * * * * *", "five fields"),
        ("0  7 * * *", "one space between"),
        ("5-5 * * * *", "is not a range from a lower value"),
        ("0 0 * * fri-mon", "is not a range from a lower value"),
        ("5/10 * * * *", "step without a range"),
        ("0 0 11 * l7", "only when both are true"),
        ("0 0 * * *,fri#2", "mixes plain weekdays"),
        ("r * * * *", 'minute "r"'),
        *((f"0 0 {date} *", "never runs") for date in ("31 2", "30 feb", "30,31 2")),
        *((f"0 0 {date} *", "never runs") for date in ("31 4-8/5", "31 2,sep,11")),
        ("0 0 31 2 *,mon", "never runs"),
    ],
)
def test_a_schedule_that_would_surprise_is_refused(
    schedule: str, reason: str, problems: Any
) -> None:
    """croniter accepts these: seconds, the whole cycle, all days, a random minute…"""
    assert croniter.is_valid(schedule)
    message = problems.schedule_problem(schedule)
    assert reason in message and "write " in message


def test_every_area_and_city_is_accepted(problems: Any) -> None:
    zones = {
        zone
        for zone in zoneinfo.available_timezones()
        if "/" in zone and not zone.startswith(("posix/", "right/"))
    }
    assert len(zones) > 300
    for zone in (*zones, "UTC"):
        job = {"name": "a", "schedule": "@daily", "timezone": zone}
        assert not problems.jobs_problem([job]), zone


@pytest.mark.parametrize(
    "zone",
    [
        *("London Time", "GMT+1", "../etc", "../../etc/passwd", "Europe/../etc"),
        *("europe/london", "", 1),
    ],
)
def test_a_zone_of_another_form_is_refused(zone: object, problems: Any) -> None:
    job = {"name": "a", "schedule": "@daily", "timezone": zone}
    message = problems.jobs_problem([job])
    assert f'"{zone}" is not of the form Area/City: write a time zone' in message
    assert problems.jobs_problem([{**job, "timezone": "a=b"}]).startswith(
        "a: the given value for timezone (not shown: it may hold a secret) is not of"
    )


# ------------------------------------------------------- lists that must stay complete


JOB = {"name": "send_parcel", "schedule": "@daily"}
RENDERS: dict[str, dict[str, object]] = {
    "names-backend": {"scope": "backend", "jobs": [JOB], "workflow": True},
    "names-service": {"jobs": [JOB], "metrics": True, "workers": [{}, {}]},
    "names-thread": {
        "jobs": [{**JOB, "queue": "q"}],
        "queues": [{"name": "q", "executor": "thread"}],
        "sentry": False,
    },
    "names-process": {
        "scope": "backend",
        "jobs": [{**JOB, "queue": "q"}],
        "queues": [{"name": "q", "executor": "process"}],
    },
}


def names_near(job: str, scope: symtable.SymbolTable) -> set[str]:
    """Names that a module binds or uses, and locals of its functions that use the job."""
    symbols = {symbol.get_name(): symbol for symbol in scope.get_symbols()}
    all_of_them = scope.get_type() == "module" or job in {scope.get_name(), *symbols}
    found = {n for n, symbol in symbols.items() if all_of_them or symbol.is_global()}
    return found.union(*(names_near(job, child) for child in scope.get_children()))


def test_a_job_cannot_take_a_name_that_its_modules_use(
    rendered: Callable[[str, dict[str, object]], Path], problems: Any
) -> None:
    used = set()
    for render, answers in RENDERS.items():
        (workers,) = rendered(render, answers).rglob("workers")
        used |= {path.stem for path in workers.iterdir()}
        for path in (
            workers / "chancy_initialization.py",
            workers.parent / "main.py",
            workers / "__init__.py",
            workers / "send_parcel" / "worker.py",
            *workers.glob("tests/test_job_*.py"),
        ):
            module = symtable.symtable(path.read_text(), str(path), "exec")
            used |= names_near("send_parcel", module)

    names = {name for name in used if re.fullmatch("[a-z][a-z0-9_]*", name)}
    names = {name for name in names if "send_parcel" not in name}
    assert {"dsn", "print", "push_job", "run_job", "require_version"} <= names
    assert not {name for name in names if not problems.jobs_problem([name])}


def test_the_lists_of_names_match_the_questions(problems: Any) -> None:
    questions = yaml.safe_load((TEMPLATE / "copier.yml").read_text())
    asked: list[str] = []
    hidden: list[str] = []
    for name, question in questions.items():
        if not name.startswith("_"):
            (hidden if question.get("when") is False else asked).append(name)

    assert problems.answer_names == asked
    assert problems.hidden_names == hidden
