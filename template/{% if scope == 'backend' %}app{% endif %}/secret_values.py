"""The secrets of the backend."""

import os
import re


class SecretNotFoundError(LookupError):
    """A secret is neither in the environment nor in Azure Key Vault."""


def get_secret_value(name: str) -> str:
    """Returns a secret from the environment, or else from Azure Key Vault.

    Args:
        name: The name in Key Vault; the environment variable of "A-NAME" is A_NAME.

    Raises:
        SecretNotFoundError: Neither place has it.
        ValueError: It is not a valid name in Key Vault. Two such names could have the
            same environment variable.
    """
    if not re.fullmatch("[0-9a-zA-Z-]{1,127}", name):
        raise ValueError(f"{name!r} is not a secret's name: use letters, digits and -")
    variable = name.upper().replace("-", "_")
    if value := os.environ.get(variable):
        return value
    vault_url = os.environ.get("AZURE_KEY_VAULT_URL")
    if not vault_url:
        raise SecretNotFoundError(
            f"no secret {name}: the environment variable {variable} is not set, and "
            "AZURE_KEY_VAULT_URL, the Key Vault to look in, is not set either"
        )
    try:
        return _from_key_vault(vault_url, name)
    except LookupError as error:
        raise SecretNotFoundError(
            f"no secret {name}: the environment variable {variable} is not set, and "
            f"the Key Vault {vault_url} did not return it ({error})"
        ) from error


def _from_key_vault(vault_url: str, name: str) -> str:
    if not vault_url.startswith("https://"):
        raise LookupError("AZURE_KEY_VAULT_URL must be https://<vault>.vault.azure.net")
    try:
        from azure.core.exceptions import AzureError
        from azure.identity import DefaultAzureCredential
        from azure.keyvault.secrets import SecretClient
    except ImportError:
        raise LookupError("run uv sync --extra azure first") from None
    with (
        DefaultAzureCredential() as credential,
        SecretClient(vault_url, credential) as client,
    ):
        try:
            value = client.get_secret(name).value
        except (AzureError, ValueError) as error:
            raise LookupError(str(error).partition("\n")[0]) from error
    if not value:
        raise LookupError("it is empty")
    return value
