"""Secrets from Azure Key Vault, over real HTTPS to a vault on loopback."""

import datetime
import ipaddress
import json
import ssl
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from .support import environment, run

PROGRAM = "from app.secret_values import get_secret_value; print(get_secret_value('A-SECRET'))"
VALUE = "postgresql://someone:hunter2@host/database"


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A self-signed certificate for 127.0.0.1 with its key, as one PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "vault")])
    now = datetime.datetime.now(tz=datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
            ),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "vault.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + signed.public_bytes(serialization.Encoding.PEM)
    )
    return path


class Handler(BaseHTTPRequestHandler):
    """The token endpoint of the managed identity, and the vault."""

    secrets: dict[str, str] = {}
    port = 0

    def do_GET(self) -> None:
        if self.path.startswith("/token"):
            self.answer(
                200, {"access_token": "t", "expires_on": "4102444800", "resource": "r"}
            )
        elif "Authorization" not in self.headers:
            # The client requires that the vault's host is below this resource.
            challenge = (
                'Bearer authorization="https://login.example.invalid/tenant", '
                f'resource="https://0.0.1:{self.port}"'
            )
            self.answer(401, {}, ("WWW-Authenticate", challenge))
        elif (name := self.path.split("/")[2]) in self.secrets:
            self.answer(
                200,
                {
                    "value": self.secrets[name],
                    "id": f"https://127.0.0.1/secrets/{name}/1",
                },
            )
        else:
            error = {
                "code": "SecretNotFound",
                "message": f"{name} was not found in this vault",
            }
            self.answer(404, {"error": error})

    def answer(self, status: int, body: object, *headers: tuple[str, str]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        for header in (("Content-Type", "application/json"), *headers):
            self.send_header(*header)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None: ...


@contextmanager
def vault(certificate: Path, secrets: dict[str, str]) -> Iterator[dict[str, str]]:
    """Yields the environment of a container with a managed identity and this vault."""

    class OneVault(Handler):
        pass

    OneVault.secrets = secrets
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with (
        ThreadingHTTPServer(("127.0.0.1", 0), OneVault) as identity,
        ThreadingHTTPServer(("127.0.0.1", 0), OneVault) as server,
    ):
        OneVault.port = server.server_port
        server.socket = context.wrap_socket(server.socket, server_side=True)
        for each in (identity, server):
            threading.Thread(target=each.serve_forever, daemon=True).start()
        yield environment(
            AZURE_KEY_VAULT_URL=f"https://127.0.0.1:{server.server_port}",
            IDENTITY_ENDPOINT=f"http://127.0.0.1:{identity.server_port}/token",
            IDENTITY_HEADER="header",
            REQUESTS_CA_BUNDLE=str(certificate),
        )
        identity.shutdown()
        server.shutdown()


def test_a_secret_that_is_not_in_the_environment_comes_from_the_vault(
    backend: Path, certificate: Path
) -> None:
    with vault(certificate, {"A-SECRET": VALUE}) as container:
        result = run(sys.executable, "-c", PROGRAM, cwd=backend, env=container)

    assert result.stdout.strip() == VALUE


def test_the_error_for_a_missing_secret_names_both_places_and_no_value(
    backend: Path, certificate: Path
) -> None:
    with vault(certificate, {"ANOTHER": VALUE}) as container:
        result = run(
            sys.executable, "-c", PROGRAM, cwd=backend, env=container, check=False
        )

    line = result.stderr.splitlines()[-1]
    assert "no secret A-SECRET: the environment variable A_SECRET is not set" in line
    assert container["AZURE_KEY_VAULT_URL"] in line and "was not found" in line
    assert "hunter2" not in result.stderr


def test_without_the_extra_the_error_names_the_command_that_installs_it(
    backend: Path, tmp_path: Path
) -> None:
    (tmp_path / "azure").mkdir()
    (tmp_path / "azure" / "__init__.py").write_text(
        "raise ImportError('not installed')\n"
    )

    result = run(
        *(sys.executable, "-c", PROGRAM),
        cwd=backend,
        env=environment(
            AZURE_KEY_VAULT_URL="https://127.0.0.1:1", PYTHONPATH=str(tmp_path)
        ),
        check=False,
    )

    assert "run uv sync --extra azure first" in result.stderr.splitlines()[-1]
