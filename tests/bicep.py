"""Reads Bicep files as data and checks them with the models of Azure's own client."""

import types
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from azure.mgmt.appcontainers import models
from azure.mgmt.appcontainers.models import _models
from pycep import BicepParser

MODELS = {
    "Microsoft.App/containerApps": models.ContainerApp,
    "Microsoft.App/jobs": models.Job,
    "Microsoft.App/managedEnvironments": models.ManagedEnvironment,
}


class Bicep:
    """A Bicep file in which variables are replaced by their values."""

    def __init__(self, path: Path) -> None:
        self.path = path
        parsed: Any = BicepParser().parse(text=path.read_text())
        self.parameters: dict[str, Any] = parsed["parameters"]
        self._variables = {
            name: variable["value"]
            for name, variable in parsed.get("variables", {}).items()
        }
        self.resources: dict[str, dict[str, Any]] = {
            name: {**resource, "config": self._with_variables(resource["config"])}
            for name, resource in parsed["resources"].items()
            if not resource["existing"]
        }

    def apps(self) -> dict[str, Any]:
        """The properties of its Container Apps, by their names in the file."""
        return {
            name: resource["config"]["properties"]
            for name, resource in self.resources.items()
            if resource["type"] == "Microsoft.App/containerApps"
        }

    def problems(self) -> list[str]:
        """The properties and values that Azure's client does not know."""
        return [
            f"{self.path.name}: {name}{problem}"
            for name, resource in self.resources.items()
            if (model := MODELS.get(resource["type"]))
            for problem in _problems(resource["config"], model)
        ]

    def _with_variables(self, value: Any) -> Any:
        if isinstance(value, str):
            known = self._variables.get(value, value)
            return known if known is value else self._with_variables(known)
        if isinstance(value, list):
            return [self._with_variables(each) for each in value]
        if isinstance(value, dict):
            return {key: self._with_variables(each) for key, each in value.items()}
        return value


def _problems(value: Any, hint: Any) -> Iterator[str]:
    if isinstance(value, dict) and value.keys() & {"function", "operator"}:
        return  # An expression, whose value only Azure knows.
    if get_origin(hint) in (Union, types.UnionType):
        hints = [each for each in get_args(hint) if each not in (type(None), str)]
        hint = hints[0] if hints else str
    if get_origin(hint) is list:
        if not isinstance(value, list):
            yield f": {value!r} is not a list"
            return
        for number, each in enumerate(value):
            for problem in _problems(each, get_args(hint)[0]):
                yield f"[{number}]{problem}"
    elif get_origin(hint) is dict:
        for key, each in value.items():
            for problem in _problems(each, get_args(hint)[1]):
                yield f"[{key}]{problem}"
    elif hint.__module__ == _models.__name__:
        known = _properties(hint)
        for key, each in value.items():
            if key not in known:
                yield f".{key}: {hint.__name__} has no such property"
            else:
                for problem in _problems(each, known[key]):
                    yield f".{key}{problem}"
    elif issubclass(hint, Enum):
        if value not in [each.value for each in hint]:
            yield f": {value!r} is not one of {[each.value for each in hint]}"
    elif not isinstance(value, hint) or isinstance(value, bool) is not (hint is bool):
        yield f": {value!r} is not of the type {hint.__name__}"


def _properties(model: type) -> dict[str, Any]:
    """The properties of a model by their names in requests, with their types."""
    hints = get_type_hints(model, {**vars(_models), "_models": models})
    return {
        getattr(field, "_rest_name_input", None) or name: hints[name]
        for parent in model.__mro__
        for name, field in vars(parent).items()
        if type(field).__name__ == "_RestField"
    }
