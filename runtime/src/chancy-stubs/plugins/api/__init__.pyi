from chancy.app import Chancy
from chancy.plugin import Plugin
from chancy.plugins.api.auth import AuthBackend, SimpleAuthBackend
from chancy.plugins.api.auth import TokenAuthBackend as TokenAuthBackend
from chancy.plugins.api.plugin import ApiPlugin as ApiPlugin
from chancy.worker import Worker
from starlette.applications import Starlette

__all__ = ("Api", "AuthBackend", "SimpleAuthBackend")

class Api(Plugin):
    port: int
    host: str
    debug: bool
    allow_origins: list[str]
    plugins: set[type[ApiPlugin]]
    authentication_backend: AuthBackend
    secret_key: str
    def __init__(
        self,
        *,
        port: int = 8000,
        host: str = "127.0.0.1",
        debug: bool = False,
        allow_origins: list[str] | None = None,
        secret_key: str | None = None,
        authentication_backend: AuthBackend,
    ) -> None: ...
    @staticmethod
    def get_identifier() -> str: ...
    def build_starlette_app(self, worker: Worker, chancy: Chancy) -> Starlette: ...
