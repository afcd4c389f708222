import abc
from collections.abc import Callable
from typing import Any, TypedDict

from chancy.plugins.api import Api

class RouteT(TypedDict):
    path: str
    endpoint: Callable[..., Any]
    methods: list[str] | None
    name: str | None
    is_websocket: bool | None

class ApiPlugin(abc.ABC):
    api: Api
    def __init__(self, api: Api) -> None: ...
    @abc.abstractmethod
    def name(self) -> str: ...
    def routes(self) -> list[RouteT]: ...
