"""Settings: safe defaults, and errors that name the variable without repeating what it holds."""

import os
from pathlib import Path

import pytest

from kit import settings
from kit.errors import ConfigurationError


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("FANXING_"):
            monkeypatch.delenv(name)


def test_the_defaults_are_safe_and_local() -> None:
    loaded = settings.load()
    assert loaded.database == "sqlite:///var/fanxing.db"
    assert loaded.host == "127.0.0.1"
    assert loaded.code_sender == "none"
    assert loaded.vault_key_path == Path("var/vault.key")
    assert loaded.keys_folder == Path("var/keys")


def test_private_keys_are_in_files_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings.load().custody == "file"
    monkeypatch.setenv("FANXING_CUSTODY", "kms")
    monkeypatch.setenv("FANXING_KMS_ENDPOINT", "http://127.0.0.1:4566/")
    monkeypatch.setenv("FANXING_KMS_ALIAS_PREFIX", "a" * 100)
    loaded = settings.load()
    assert (loaded.custody, loaded.kms_endpoint, loaded.kms_alias_prefix) == (
        "kms",
        "http://127.0.0.1:4566/",
        "a" * 100,
    )


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FANXING_HOME", "/srv/fanxing")
    monkeypatch.setenv("FANXING_DATABASE_URL", "postgresql://db/fanxing")
    monkeypatch.setenv("FANXING_PORT", "65535")
    monkeypatch.setenv("FANXING_CARRIER_TOKEN", "hush")
    loaded = settings.load()
    assert (loaded.database, loaded.port) == ("postgresql://db/fanxing", 65535)
    assert loaded.vault_key_path == Path("/srv/fanxing/vault.key")
    assert loaded.carrier_token.get_secret_value() == "hush"
    assert "hush" not in repr(loaded)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FANXING_PORT", "0"),
        ("FANXING_PORT", "65536"),
        ("FANXING_PORT", "many-hunter2"),
        ("FANXING_DATABASE_CONNECTIONS", "0"),
        ("FANXING_DATABASE_CONNECTIONS", "201"),
        ("FANXING_DATABASE_URL", "mysql://root:hunter2@db/x"),
        ("FANXING_BASE_URL", "ftp://hunter2.example"),
        ("FANXING_BASE_URL", "HTTPS://HUNTER2.EXAMPLE"),
        ("FANXING_BASE_URL", "HTTP://127.0.0.1:8000"),
        ("FANXING_BASE_URL", "https://user:hunter2@example.cn"),
        ("FANXING_CODE_SENDER", "hunter2"),
        ("FANXING_LOG_LEVEL", "hunter2"),
        ("FANXING_DATABASE_URL", "postgresql://u:hunter2@db:notaport/x"),
        ("FANXING_CARRIER_URL", "hunter2"),
        ("FANXING_CARRIER_URL", "https://carrier.example/?token=hunter2"),
        ("FANXING_CUSTODY", "hunter2"),
        ("FANXING_KMS_ENDPOINT", "hunter2"),
        ("FANXING_KMS_ENDPOINT", "ftp://hunter2.example"),
        ("FANXING_KMS_ENDPOINT", "https://user:hunter2@kms.example"),
        ("FANXING_KMS_ENDPOINT", "https://kms.example/?token=hunter2"),
        ("FANXING_KMS_ALIAS_PREFIX", "aws/hunter2"),
        ("FANXING_KMS_ALIAS_PREFIX", "hunter2 "),
        ("FANXING_KMS_ALIAS_PREFIX", "hunter2" * 14 + "abc"),
        ("FANXING_TRUST_DOMAIN", ""),
        ("FANXING_TRUST_DOMAIN", "hunter2" * 15),
    ],
)
def test_a_wrong_value_is_refused_by_name_and_not_repeated(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=name) as refusal:
        settings.load()
    assert "hunter2" not in f"{refusal.value} {refusal.value.hint} {refusal.value.__cause__}"


def test_every_wrong_variable_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FANXING_PORT", "0")
    monkeypatch.setenv("FANXING_LOG_LEVEL", "LOUD")
    with pytest.raises(ConfigurationError, match=r"(?s)FANXING_PORT.*FANXING_LOG_LEVEL"):
        settings.load()
