"""Secrets come from the environment first, then from Key Vault."""

import pytest

from app.secret_values import SecretNotFoundError, get_secret_value


def test_the_environment_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET", "from the environment")
    monkeypatch.setenv("AZURE_KEY_VAULT_URL", "https://vault.invalid")

    assert get_secret_value("A-SECRET") == "from the environment"


def test_a_missing_secret_names_both_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_KEY_VAULT_URL", raising=False)

    with pytest.raises(
        SecretNotFoundError, match=r"A-MISSING.*A_MISSING.*AZURE_KEY_VAULT_URL"
    ):
        get_secret_value("A-MISSING")


def test_a_vault_that_does_not_return_it_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AZURE_KEY_VAULT_URL", "http://127.0.0.1:9")

    with pytest.raises(SecretNotFoundError, match=r"A-MISSING.*http://127.0.0.1:9"):
        get_secret_value("A-MISSING")


def test_a_name_that_key_vault_does_not_allow_is_refused() -> None:
    with pytest.raises(ValueError, match="'A_SECRET' is not a secret's name"):
        get_secret_value("A_SECRET")
