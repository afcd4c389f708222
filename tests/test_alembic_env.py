"""`check` reads env.py: Alembic's own templates, and teams' versions of them."""

from pathlib import Path

import alembic
import pytest
from chancy_workers.alembic_env import gaps_in

TEMPLATES = sorted((Path(alembic.__file__).parent / "templates").glob("*/env.py"))
IMPORT = "from chancy_runtime.alembic import include_object\n"
CONFIGURE = """
from alembic import context
{imports}
MODELS = Base.metadata
context.configure({arguments})
"""


def problems_of(text: str) -> list[str]:
    return [gap.problem for gap in gaps_in(text, "billing_")]


def file(arguments: str, imports: str = "") -> str:
    return CONFIGURE.format(arguments=arguments, imports=imports)


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.parent.name)
def test_alembic_s_templates_with_models_are_reported(template: Path) -> None:
    text = template.read_text()
    empty = (
        "target_metadata = {}"
        if "multidb" in str(template)
        else "target_metadata = None"
    )
    assert empty in text
    with_models = text.replace(empty, "target_metadata = Base.metadata")

    assert problems_of(text) == []
    assert [problem[:12] for problem in problems_of(with_models)] == ["autogenerate"]
    (gap,) = gaps_in(with_models, "billing_")
    assert "configure(" in with_models.splitlines()[gap.line - 1]
    # The first call is for SQL scripts and never compares.
    online = with_models.rindex("configure(")
    mended = (
        f'{with_models[:online]}configure(include_object=include_object("billing_"), '
    )
    assert (
        problems_of(IMPORT + mended + with_models[online + len("configure(") :]) == []
    )


FILES = {
    "called": (
        'connection=c, target_metadata=MODELS, include_object=f("billing_")',
        True,
    ),
    "in two steps": ("connection=c, target_metadata=MODELS, include_object=ours", True),
    "no models": ("connection=c, target_metadata=None", True),
    "scripts": ("url=u, target_metadata=MODELS", True),
    "by position": ("c, target_metadata=MODELS", False),
    "another filter": (
        "connection=c, target_metadata=MODELS, process_revision_directives=p",
        False,
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_each_form_of_the_call_is_read(name: str) -> None:
    arguments, is_whole = FILES[name]
    imports = IMPORT.replace("object\n", "object as f\nours = f('billing_', \"b\")\n")

    assert (problems_of(file(arguments, imports)) == []) == is_whole


@pytest.mark.parametrize(
    ("imports", "call"),
    [
        ("from chancy_runtime import alembic as ours", "ours.include_object"),
        ("import chancy_runtime.alembic", "chancy_runtime.alembic.include_object"),
        ("from chancy_runtime.alembic import include_object as ours", "ours"),
    ],
)
def test_a_missing_prefix_is_reported(imports: str, call: str) -> None:
    arguments = "connection=c, target_metadata=MODELS, include_object={}({})"

    def of(given: str) -> list[str]:
        return problems_of(file(arguments.format(call, given), imports))

    assert of('"billing_"') == of("*PREFIXES") == of('PREFIX, "shipping_"') == []
    (problem,) = of('"shipping_", "mail_"')
    assert problem.endswith("include_object() names only shipping_, mail_")


@pytest.mark.parametrize(
    "more", ["include_object=ours", "include_name=ours", "**options"]
)
def test_a_filter_that_is_known_only_at_run_time_is_not_certain(more: str) -> None:
    arguments = f"connection=c, target_metadata=MODELS, {more}"
    (gap,) = gaps_in(file(arguments), "billing_")

    assert not gap.is_certain and "cannot be determined statically" in gap.problem


@pytest.mark.parametrize(
    "text",
    [
        "",
        "def broken(",
        "\0",
        "import logging_tool\nlogging_tool.configure(connection=c, target_metadata=M)\n",
    ],
)
def test_an_env_py_that_is_not_alembic_s_is_skipped(text: str) -> None:
    assert problems_of(text) == []
