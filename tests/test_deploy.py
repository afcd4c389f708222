"""The tools for the files of a deployment find nothing in them, and the files keep promises."""

import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from configparser import ConfigParser
from contextlib import ExitStack
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import psycopg
import pytest
import yaml
from azure.mgmt.appcontainers.models import JobExecutionRunningState
from chancy_runtime import Settings
from chancy_workers.answers import read
from chancy_workers.checks import (
    Finding,
    Subject,
    has_probes_without_routes,
    is_killed_too_soon,
)
from chancy_workers.deploy_files import SHUTDOWN_GRACE

from harness.probes import wait_until_ready
from harness.servers import cluster, free_port, pgbouncer

from .bicep import Bicep
from .support import (
    alarms,
    commit,
    database,
    environment,
    migrate,
    run,
    service,
)

pytestmark = pytest.mark.xdist_group("deploy")

AZURE: dict[str, Any] = {"deploy": "azure-container-apps"}
# Together they have every answer that changes one of the files.
ANSWERS: dict[str, dict[str, Any]] = {
    "in-api": {**AZURE, "scope": "backend"},
    "apart": {
        **AZURE,
        "scope": "backend",
        "run_workers": "own_process",
        "pooler_connections": 100,
        "sentry": False,
        "dashboard": "own_process",
        "dashboard_secret": "DASHBOARD-PASSWORD",
        "runtime": "index",
        "runtime_index": "https://packages.example.com/simple",
    },
    "service": {
        **AZURE,
        "service": "a_service_with_quite_a_long_name_of_40_c",
        "prefix": "b_",
        "run_workers": "both",
        "pooler_connections": 100,
        "get_secret_value": "common.secrets.read",
        "database_secret": "ORDERS_DATABASE_URL",
        "queues": [
            {"name": "default", "tags": ["light"]},
            {"name": "reports", "executor": "thread", "tags": ["heavy"]},
        ],
        "workers": [
            {"tags": ["light"], "process": "api"},
            {"tags": ["heavy"], "process": "own"},
        ],
    },
}
DEPLOY_FILES = ["deploy.sh", "environment.bicep", "main.bicep", "migrate.bicep"]


@pytest.fixture(params=list(ANSWERS))
def deployment(
    request: pytest.FixtureRequest,
    rendered: Callable[[str, dict[str, object]], Path],
) -> Path:
    """The folder deploy/ of a backend or of a service."""
    return rendered(f"deploy-{request.param}", ANSWERS[request.param]) / "deploy"


@pytest.fixture
def deployments(rendered: Callable[[str, dict[str, object]], Path]) -> list[Path]:
    return [
        rendered(f"deploy-{name}", answers) / "deploy"
        for name, answers in ANSWERS.items()
    ]


def found(deployments: list[Path], name: str) -> list[Path]:
    """A file of each deployment; files for Docker are at the root of a backend."""
    return [
        path
        for folder in deployments
        for path in (folder / name, folder.parent / name)
        if path.is_file()
    ]


def tool(name: str) -> Path:
    return Path(sys.executable).with_name(name)


def test_without_the_answer_no_file_of_a_deployment_is_rendered(backend: Path) -> None:
    names = {path.name for path in backend.rglob("*")}

    assert names.isdisjoint(
        {"deploy", "Dockerfile", ".dockerignore", "compose.yaml", *DEPLOY_FILES}
    )


def test_only_lines_with_a_text_that_cannot_be_broken_are_long(
    deployments: list[Path],
) -> None:
    text = re.compile(r"'(\\'|[^'])*'|\"[^\"]*\"")
    for name in (*DEPLOY_FILES, "Dockerfile", "compose.yaml", "*dockerignore"):
        for path in [each for at in deployments for each in at.rglob(name)]:
            for line in path.read_text().splitlines():
                line = line.replace(ANSWERS["service"]["service"], "billing")
                if not line.lstrip().startswith(("#", "//", "echo", "printf")):
                    line = text.sub("", line)
                assert len(line) <= 88, (path, line)


def test_a_service_has_all_files_of_its_deployment_in_its_own_folder(
    rendered: Callable[[str, dict[str, object]], Path],
) -> None:
    folder = rendered("deploy-service", ANSWERS["service"])

    assert sorted(path.name for path in (folder / "deploy").iterdir()) == [
        "Dockerfile",
        "Dockerfile.dockerignore",
        "compose.yaml",
        *DEPLOY_FILES,
    ]
    assert not (folder / "Dockerfile").exists()


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("Dockerfile", ["hadolint"]),
        ("deploy.sh", ["shellcheck"]),
        ("compose.yaml", ["compose-lint", "--fail-on=high"]),
        ("compose.yaml", ["check-jsonschema", "--builtin-schema=vendor.compose-spec"]),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_the_tool_for_a_file_finds_nothing(
    name: str, command: list[str], deployments: list[Path]
) -> None:
    files = found(deployments, name)
    assert len(files) == len(deployments)

    result = run(
        tool(command[0]), *command[1:], *files, cwd=deployments[0], check=False
    )

    assert result.returncode == 0, result.stdout + result.stderr


STORAGE = """
resource storage 'Microsoft.Storage/storageAccounts@2023-01-01' = {
  name: 'storage'
  properties: {
    supportsHttpsTrafficOnly: false
  }
}
"""


def test_checkov_finds_nothing(deployments: list[Path], tmp_path: Path) -> None:
    """It needs other versions of packages than these tests, so uv runs it separately."""
    uv = os.environ.get("UV") or shutil.which("uv")
    assert uv, "uv is not installed: python3 -m pip install uv"
    for number, folder in enumerate(deployments):
        for path in (*found([folder], "Dockerfile"), *folder.glob("*.bicep")):
            (tmp_path / f"{number}").mkdir(exist_ok=True)
            shutil.copy(path, tmp_path / f"{number}")
    # It skips files that it cannot parse without a message, so it must find this problem.
    with (tmp_path / "0" / "main.bicep").open("a") as bicep:
        bicep.write(STORAGE)

    result = run(
        *(uv, "tool", "run", "--python", sys.executable, "checkov@3.3.30"),
        *("--skip-download", "--directory", tmp_path, "--output", "json"),
        *("--framework", "bicep", "dockerfile"),
        cwd=tmp_path,
        check=False,
    )

    failed = {
        check["resource"]
        for report in json.loads(result.stdout)
        for check in report["results"]["failed_checks"]
    }
    assert failed == {"Microsoft.Storage/storageAccounts.storage"}


def test_azure_s_client_knows_every_property(deployment: Path) -> None:
    assert [
        problem
        for path in sorted(deployment.glob("*.bicep"))
        for problem in Bicep(path).problems()
    ] == []


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("terminationGracePeriodSeconds:", "terminationGracePeriod:"),
        ("activeRevisionsMode: 'Single'", "activeRevisionsMode: 'One'"),
        ("periodSeconds: 5", "periodSeconds: '5'"),
        ("secretRef: 'database-url'\n  }", "secretRef: 'x'\n    secret: 'y'\n  }"),
    ],
)
def test_an_unknown_property_is_found(
    right: str,
    wrong: str,
    rendered: Callable[[str, dict[str, object]], Path],
    tmp_path: Path,
) -> None:
    text = (
        rendered("deploy-apart", ANSWERS["apart"]) / "deploy/main.bicep"
    ).read_text()
    assert right in text
    (tmp_path / "main.bicep").write_text(text.replace(right, wrong))

    assert Bicep(tmp_path / "main.bicep").problems()


def test_the_apps_have_the_settings_that_the_workers_need(deployment: Path) -> None:
    main = Bicep(deployment / "main.bicep")
    answers = yaml.safe_load((deployment.parent / ".copier-answers.yml").read_text())
    apart = answers["run_workers"] != "in_api"

    assert main.apps().keys() == ({"api", "worker"} if apart else {"api"})
    for name, app in main.apps().items():
        template, configuration = app["template"], app["configuration"]
        assert configuration["activeRevisionsMode"] == "Single"
        assert configuration.get("ingress", {}).get("external", False) is (
            name == "api"
        )
        # The default shutdown_grace of 20 s, and 5 s.
        assert template["terminationGracePeriodSeconds"] >= 25
        assert 1 <= template["scale"]["minReplicas"] <= template["scale"]["maxReplicas"]
        (container,) = template["containers"]
        probes = {
            probe["type"]: probe["httpGet"]["path"] for probe in container["probes"]
        }
        assert probes == {
            "Startup": "/health/live",
            "Liveness": "/health/live",
            "Readiness": "/health/ready",
        }
        for probe in container["probes"]:
            assert 1 <= probe.get("failureThreshold", 3) <= 10
        variables = {each["name"]: each for each in container["env"]}
        # The same in every process, but different in each deployment.
        assert variables["WORKERS_DEPLOYED_AT"]["value"] == "deployedAt"
        for secret in configuration["secrets"]:
            vault, _, secret_name = secret["keyVaultUrl"].partition("secrets/")
            assert vault == "${vault.properties.vaultUri}"
            # Key Vault allows no underscores.
            assert re.fullmatch("[0-9A-Za-z-]{1,127}", secret_name)
            assert "value" not in secret
    default = main.parameters["deployedAt"]["default"]
    assert default["function"]["type"] == "utc_now"


def test_the_workers_dashboard_is_not_reachable_from_outside(
    rendered: Callable[[str, dict[str, object]], Path],
) -> None:
    folder = rendered("deploy-apart", ANSWERS["apart"]) / "deploy"
    worker = Bicep(folder / "main.bicep").apps()["worker"]

    assert worker["configuration"]["ingress"] == {
        "external": False,
        "targetPort": 8000,
        "allowInsecure": False,
    }
    secrets = {
        each["name"]: each["keyVaultUrl"] for each in worker["configuration"]["secrets"]
    }
    (variable,) = (
        each
        for each in worker["template"]["containers"][0]["env"]
        if each["name"] == "DASHBOARD_PASSWORD"
    )
    assert secrets[variable["secretRef"]].endswith("secrets/DASHBOARD-PASSWORD")


def test_the_default_grace_equals_the_library_s_default() -> None:
    assert Settings().shutdown_grace == SHUTDOWN_GRACE


def test_no_name_of_an_app_is_too_long(deployment: Path) -> None:
    for path in (deployment / "main.bicep", deployment / "migrate.bicep"):
        name = Bicep(path).parameters["name"]["default"]
        assert re.fullmatch(r"[a-z](-?[a-z0-9])*", name)
        assert len(f"{name}-migrate") < 32


AZ = """\
#!/bin/sh
echo "$(basename "$0") $*" >> "$COMMANDS"
case $* in
*"job start"*) echo billing-migrate-1 ;;
*"job execution show"*)
    [ -e "$COMMANDS.asked" ] && echo "$STATUS" || echo Running
    touch "$COMMANDS.asked" ;;
esac
"""


def committed(
    rendered: Callable[[str, dict[str, object]], Path], tmp_path: Path
) -> Path:
    """A committed backend in its own repository."""
    folder = shutil.copytree(
        rendered("deploy-in-api", ANSWERS["in-api"]), tmp_path / "backend"
    )
    commit(folder)
    return folder


def run_script(folder: Path, tmp_path: Path, status: str) -> CompletedProcess[str]:
    """Runs the script with programs that replace az and docker and record their arguments."""
    for name in ("az", "docker", "sleep"):
        (tmp_path / name).write_text(AZ)
        (tmp_path / name).chmod(0o755)
    return run(
        *("sh", folder / "deploy/deploy.sh"),
        cwd=tmp_path,
        env=environment(
            PATH=f"{tmp_path}:{os.environ['PATH']}",
            COMMANDS=str(tmp_path / "commands"),
            STATUS=status,
            **{"RESOURCE_GROUP": "group", "REGISTRY": "acme", "VAULT": "vault"},
        ),
        check=False,
    )


def test_uncommitted_changes_are_not_deployed(
    rendered: Callable[[str, dict[str, object]], Path], tmp_path: Path
) -> None:
    """The image's tag is the commit, and running apps may pull it again."""
    folder = committed(rendered, tmp_path)
    (folder / "app/more.py").write_text("")

    result = run_script(folder, tmp_path, "Succeeded")

    assert result.returncode == 1
    assert "?? app/more.py\nThese changes are not committed" in result.stderr
    assert not (tmp_path / "commands").exists()


@pytest.mark.parametrize("status", ["Succeeded", "Failed"])
def test_the_apps_are_replaced_only_after_the_migration(
    status: str,
    rendered: Callable[[str, dict[str, object]], Path],
    tmp_path: Path,
) -> None:
    folder = committed(rendered, tmp_path)

    result = run_script(folder, tmp_path, status)

    commands = (tmp_path / "commands").read_text().splitlines()
    steps = [
        "docker push",
        "--template-file deploy/migrate.bicep",
        "job start",
        "--template-file deploy/main.bicep",
    ]
    done = [step for line in commands for step in steps if step in line]
    assert done == (steps if status == "Succeeded" else steps[:-1])
    assert result.returncode == (0 if status == "Succeeded" else 1), result.stderr
    assert (f"ended with the status {status}" in result.stderr) is (status == "Failed")
    (image,) = {
        word.removeprefix("image=")
        for line in commands
        for word in line.split()
        if word.startswith(("image=", "acme.azurecr.io/"))
    }
    assert re.fullmatch("acme.azurecr.io/billing:[0-9a-f]{12}", image)
    parameters = [
        {word.partition("=")[0] for word in line.split(" --parameters ")[1].split()}
        for line in commands
        if " --parameters " in line
    ]
    for name, given in zip(("migrate", "main"), parameters, strict=False):
        known = Bicep(folder / f"deploy/{name}.bicep").parameters
        needed = {key for key, each in known.items() if each["default"] is None}
        assert needed <= given <= known.keys()


def test_the_script_knows_each_state_of_a_run(deployment: Path) -> None:
    """The script waits in every state in which the job has not ended."""
    script = (deployment / "deploy.sh").read_text()
    (waiting,) = re.findall(r"^ *([\w |]+)\) sleep", script, re.MULTILINE)

    assert {state.value for state in JobExecutionRunningState} - set(
        waiting.split(" | ")
    ) == {"Succeeded", "Failed", "Stopped", "Degraded"}


def unfit(answers: Path) -> list[Finding]:
    project = read(answers)
    assert project is not None
    subject = Subject(project, {}, None, None)
    return [*is_killed_too_soon(subject), *has_probes_without_routes(subject)]


@pytest.mark.parametrize(
    ("name", "old", "new", "problem"),
    [
        ("README.md", "", "", ""),
        (
            "app/billing/workers/chancy_initialization.py",
            "Settings(",
            "Settings(shutdown_grace=60, ",
            "30 s after SIGTERM, but its shutdown_grace and the service's shutdown take 65",
        ),
        ("deploy/main.bicep", "var graceSeconds = 30", "var graceSeconds = 24", "24 s"),
        (
            "deploy/main.bicep",
            "Seconds: graceSeconds",
            "Seconds: 5",
            "gives a process 5 s",
        ),
        ("app/billing/main.py", "health_router", "router", "has no /health/live and"),
    ],
)
def test_check_finds_what_does_not_fit_the_deployment(
    name: str,
    old: str,
    new: str,
    problem: str,
    rendered: Callable[[str, dict[str, object]], Path],
    tmp_path: Path,
) -> None:
    root = shutil.copytree(
        rendered("deploy-in-api", ANSWERS["in-api"]), tmp_path / "backend"
    )
    assert old in (root / name).read_text()
    (root / name).write_text((root / name).read_text().replace(old, new))
    commit(root)
    answers = root / ".copier-answers.yml"

    found = unfit(answers)

    # The team's own files may deploy other things, with routes elsewhere.
    answers.write_text(answers.read_text().replace("deploy: azure-", "deploy: none #"))
    assert unfit(answers) == []
    assert len(found) == bool(problem)
    for each in found:
        assert (each.file, each.level) in [
            ("deploy/main.bicep", "error"),
            ("app/billing/main.py", "error"),
        ]
        assert problem in each.problem


def scale_rules(folder: Path) -> list[dict[str, Any]]:
    return [
        rule["custom"]
        for app in Bicep(folder / "main.bicep").apps().values()
        for rule in app["template"]["scale"].get("rules", [])
    ]


def test_the_scale_rule_counts_waiting_and_running_jobs(
    rendered: Callable[[str, dict[str, object]], Path], database_url: str
) -> None:
    folder = rendered("deploy-apart", ANSWERS["apart"])
    migrate(folder, "app.billing", database_url)
    (rule,) = scale_rules(folder / "deploy")
    statement = rule["metadata"]["query"].replace("\\'", "'")
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO billing_jobs (id, queue, func, kwargs, limits, meta, state, "
            "scheduled_at) SELECT gen_random_uuid(), 'default', 'f', '{}', '[]', '{}', "
            "state, NOW() + later FROM unnest(ARRAY['pending', 'running', 'retrying', "
            "'succeeded', 'failed', 'pending'], ARRAY[interval '0', '0', '0', '0', '0', "
            "'1 day']) AS _ (state, later)"
        )
        assert connection.execute(statement).fetchall() == [(3,)]

    assert rule["metadata"]["targetQueryValue"] == "100"
    # With an identity, the platform drops the metadata of the rule.
    assert rule.keys() == {"type", "metadata", "auth"}
    assert rule["auth"] == [
        {"secretRef": "database-url", "triggerParameter": "connection"}
    ]


def test_the_scale_rule_counts_only_the_queues_of_its_own_workers(
    rendered: Callable[[str, dict[str, object]], Path],
) -> None:
    folder = rendered("deploy-service", ANSWERS["service"])

    (rule,) = scale_rules(folder / "deploy")

    assert "FROM b_jobs " in rule["metadata"]["query"]
    assert r"queue IN (\'reports\')" in rule["metadata"]["query"]
    assert scale_rules(rendered("deploy-in-api", ANSWERS["in-api"]) / "deploy") == []


def test_the_services_of_compose_work_behind_its_pooler(
    rendered: Callable[[str, dict[str, object]], Path],
) -> None:
    """Its commands, variables and PgBouncer run as processes on this machine."""
    folder = rendered("deploy-apart", ANSWERS["apart"])
    compose = yaml.safe_load((folder / "compose.yaml").read_text())
    services = compose["services"]
    ini = ConfigParser()
    ini.read_string(compose["configs"]["pgbouncer"]["content"])
    settings = dict(ini["pgbouncer"])
    assert settings.pop("listen_addr") == "0.0.0.0"
    assert settings.pop("listen_port") == "5432"
    with (
        cluster() as server,
        database(server.url()) as direct,
        pgbouncer(server, **settings) as pooler,
        ExitStack() as running,
    ):
        name = direct.rpartition("/")[2]

        def variables_of(kind: str) -> dict[str, str]:
            # Compose takes variables without a value from the shell.
            shell = {"DASHBOARD_PASSWORD": "a password of some length"}
            url = f"127.0.0.1:{pooler.port}/{name}"
            return {
                # The format of Bicep's utcNow().
                "WORKERS_DEPLOYED_AT": "20261129T101614Z",
                **{
                    key: (value or shell[key]).replace("pgbouncer:5432/postgres", url)
                    for key, value in services[kind]["environment"].items()
                },
            }

        def command_of(kind: str) -> list[str]:
            command = services[kind].get("command") or cmd(folder / "Dockerfile")
            port = {"8000": str(free_port()), "0.0.0.0": "127.0.0.1"}
            return [port.get(word, word) for word in command if word != "python"]

        migrated = run(
            sys.executable,
            *command_of("migrate"),
            cwd=folder,
            env=environment(**variables_of("migrate")),
        )
        api, worker = (
            running.enter_context(
                service(folder, "", variables_of(kind), run=command_of(kind))
            )
            for kind in ("api", "worker")
        )
        for each in (api, worker):
            wait_until_ready(each)
        api.run_job("send_digest")
        assert alarms(api) + alarms(worker) == []

    assert "chancy: v1 to v" in migrated.stdout


def cmd(dockerfile: Path) -> list[str]:
    """The command of an image, as arguments for Python."""
    (line,) = re.findall(r"^CMD (\[.*\])$", dockerfile.read_text(), re.MULTILINE)
    words: list[str] = json.loads(line)
    assert words[0] == "uvicorn"
    return ["-m", *words]
