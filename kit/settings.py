"""Configuration from environment variables FANXING_*, each with a safe default."""

import ipaddress
import re
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Literal

from pydantic import SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from kit.errors import ConfigurationError
from offline_sdk.bundle import DOMAIN_CHARS_MAX
from offline_sdk.code_text import check_base_url
from offline_sdk.errors import Malformed

PREFIX = "FANXING_"
CALLBACK_SECRET_CHARACTERS_MIN = 32


class Settings(BaseSettings):
    """Every setting of the server. Read it once, with `load`, and pass it on."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")

    home: Path = Path("var")
    """The data folder: SQLite database, keys, exports."""
    database_url: str = ""
    """postgresql://… or sqlite:///…; empty means fanxing.db in the data folder."""
    database_password_file: Path | None = None
    """File with the database's password, so that it need not stand in the URL."""
    base_url: str = "http://127.0.0.1:8000"
    """Scheme, host and port under which phones reach this server; printed into every code."""
    host: str = "127.0.0.1"
    """Address that `fanxing serve` listens on."""
    port: int = 8000
    """Port that `fanxing serve` listens on, 1..65535."""
    trust_domain: str = "fanxing"
    """Name of the trust domain: key numbers are unique in it."""
    vault_key_file: Path | None = None
    """The key that encrypts personal data and serial keys; default: vault.key in the data folder."""
    signer_passphrase_file: Path | None = None
    """The passphrase of the private keys; default: signer.passphrase in the data folder. Only signing needs it."""
    custody: Literal["file", "pkcs11", "kms"] = "file"
    """Where private keys live: sealed files in the data folder, a PKCS#11 token, or a key management service."""
    pkcs11_module: Path | None = None
    """The token's PKCS#11 library, such as /usr/lib/softhsm/libsofthsm2.so."""
    pkcs11_token: str = ""
    """The token's label."""
    pkcs11_pin_file: Path | None = None
    """File with the token's user PIN; without it commands that sign ask at the terminal."""
    kms_endpoint: str = ""
    """Base URL of the key management service; empty: AWS KMS in boto3's region. Credentials are boto3's matter."""
    kms_alias_prefix: str = "fanxing/"
    """What the aliases of this installation's keys begin with, after alias/."""
    trusted_proxies: str = ""
    """Addresses and networks of the proxies before this server, with commas; only they are asked who the caller is."""
    code_sender: Literal["none", "development", "gateway"] = "none"
    """How one-time codes travel. "development" shows them in the answer: never set it where strangers can come."""
    sms_url: str = ""
    """Base URL of the gateway that sends one-time codes as messages; with FANXING_CODE_SENDER=gateway."""
    sms_token: SecretStr = SecretStr("")
    """Bearer token for the gateway."""
    carrier_url: str = ""
    """Base URL of the mobile carrier's order interface; empty: data orders wait in the outbox."""
    carrier_token: SecretStr = SecretStr("")
    """Bearer token for the carrier."""
    carrier_callback_secret: SecretStr = SecretStr("")
    """What the carrier signs its callbacks with, 32 characters or more; two, separated by a blank, while it changes."""
    cash_url: str = ""
    """Base URL of the provider of cash red packets; empty: cash orders wait in the outbox."""
    cash_token: SecretStr = SecretStr("")
    """Bearer token for the provider of cash."""
    cash_callback_secret: SecretStr = SecretStr("")
    """What the provider of cash signs its callbacks with; as for the carrier."""
    webhook_targets: Literal["public", "private"] = "public"
    """Where webhooks may go: public addresses alone, or private ones and this machine too, for development."""
    database_connections: int = 10
    """Most open connections to the database in one process, 1..200."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @field_validator("base_url")
    @classmethod
    def _canonical_base_url(cls, value: str) -> str:
        if value.isupper():
            # Browsers write the origin of a page in lower case, and it is compared with this one.
            raise ValueError("the server's base URL is lower-case; upper case is for the codes of an order")
        try:
            return check_base_url(value)
        except Malformed as error:
            raise ValueError(str(error)) from None

    @field_validator("port")
    @classmethod
    def _port_range(cls, value: int) -> int:
        if not 1 <= value <= 65535:
            raise ValueError("a port is 1 to 65535")
        return value

    @field_validator("database_connections")
    @classmethod
    def _connections_range(cls, value: int) -> int:
        if not 1 <= value <= 200:
            raise ValueError("1 to 200 connections")
        return value

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, value: str) -> str:
        if value and not value.startswith(("sqlite:///", "postgresql://")):
            raise ValueError("a database URL starts with sqlite:/// or postgresql://")
        try:
            make_url(value or "sqlite://")
        except (ArgumentError, ValueError):
            raise ValueError("this is no database URL, such as postgresql://user@host:5432/name") from None
        return value

    @field_validator("carrier_url", "cash_url")
    @classmethod
    def _web_address(cls, value: str) -> str:
        if value and not re.fullmatch(r"https?://[^\s/?#]+(/[^\s?#]*)?", value):
            raise ValueError("a provider's base URL starts with http:// or https:// and has no query")
        return value

    @field_validator("carrier_callback_secret", "cash_callback_secret")
    @classmethod
    def _long_secrets(cls, value: SecretStr) -> SecretStr:
        secrets = value.get_secret_value().split()
        if len(secrets) > 2 or any(len(secret) < CALLBACK_SECRET_CHARACTERS_MIN for secret in secrets):
            raise ValueError(f"one or two secrets of {CALLBACK_SECRET_CHARACTERS_MIN} characters or more")
        return value

    @field_validator("sms_url")
    @classmethod
    def _gateway_address(cls, value: str) -> str:
        if value and not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#]*)?", value):
            raise ValueError("the gateway's base URL starts with http:// or https:// and has no query")
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _proxies(cls, value: str) -> str:
        networks(value)
        return value

    @field_validator("kms_endpoint")
    @classmethod
    def _kms_address(cls, value: str) -> str:
        if value and not re.fullmatch(r"https?://[^\s/?#@]+/?", value):
            raise ValueError("the KMS endpoint is http:// or https://, a host and perhaps a port")
        return value

    @field_validator("kms_alias_prefix")
    @classmethod
    def _kms_aliases(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9/_-]{0,100}", value) or value.startswith("aws/"):
            raise ValueError("an alias prefix is up to 100 of A-Z, a-z, 0-9, / _ -, and does not begin with aws/")
        return value

    @field_validator("trust_domain")
    @classmethod
    def _trust_domain_named(cls, value: str) -> str:
        if not 1 <= len(value) <= DOMAIN_CHARS_MAX or not value.isprintable():
            raise ValueError(f"a trust domain's name is 1 to {DOMAIN_CHARS_MAX} printable characters")
        return value

    @property
    def database(self) -> str:
        """The database's URL, never empty. Raises ConfigurationError when the password's file cannot be read."""
        url = self.database_url or f"sqlite:///{self.home / 'fanxing.db'}"
        if self.database_password_file is None:
            return url
        try:
            password = self.database_password_file.read_text(encoding="utf-8").strip()
        except OSError:
            raise ConfigurationError(
                f"{PREFIX}DATABASE_PASSWORD_FILE: cannot read {self.database_password_file}"
            ) from None
        return make_url(url).set(password=password).render_as_string(hide_password=False)

    @property
    def keys_folder(self) -> Path:
        """Where file custody keeps the encrypted private keys."""
        return self.home / "keys"

    @property
    def vault_key_path(self) -> Path:
        return self.vault_key_file or self.home / "vault.key"

    @property
    def signer_passphrase_path(self) -> Path:
        return self.signer_passphrase_file or self.home / "signer.passphrase"

    @property
    def root_pin_path(self) -> Path:
        """The first root document's fingerprint: what a scanner pins, and what this server follows its roots from."""
        return self.home / "root.pin"


def networks(text: str) -> tuple[IPv4Network | IPv6Network, ...]:
    """The networks of a list such as "10.0.0.7, 2001:db8::/32"; an address alone is a network of one. ValueError."""
    try:
        return tuple(ipaddress.ip_network(word.strip()) for word in text.split(",") if word.strip())
    except ValueError:
        raise ValueError("trusted proxies are addresses or networks such as 10.0.0.0/8, with commas") from None


def load() -> Settings:
    """Read the environment.

    Raises ConfigurationError naming the variable; a wrong value is never repeated, since it may be a secret.
    """
    try:
        return Settings()
    except ValidationError as error:
        faults = "; ".join(
            f"{PREFIX}{'_'.join(str(part) for part in fault['loc']).upper()}: {fault['msg']}"
            for fault in error.errors(include_input=False, include_url=False)
        )
        raise ConfigurationError(faults, hint="README.md, section Configuration, lists every variable.") from None
