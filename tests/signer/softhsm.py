"""SoftHSM2 for tests: a real PKCS#11 library whose tokens are folders."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pkcs11
import pytest

from signer.custody.pkcs11 import TokenCustody
from signer.service import TokenCustodyAccess

PIN = "correct-horse-1"
LABEL = "fanxing-test"
_OFFICER_PIN = "battery-staple-2"
_PLACES = ("/usr/lib/softhsm", "/usr/lib/x86_64-linux-gnu/softhsm", "/usr/lib/aarch64-linux-gnu/softhsm")


def module() -> Path:
    """The library. Fails with the command that installs it."""
    for place in _PLACES:
        path = Path(place) / "libsofthsm2.so"
        if path.exists():
            return path
    pytest.fail("SoftHSM2 is missing: apt-get install -y softhsm2")


@dataclass(frozen=True)
class SoftToken:
    """A token that this process and its children find."""

    folder: Path
    label: str

    @property
    def tokens(self) -> Path:
        """Everything that the token knows, encrypted under its PINs."""
        return self.folder / "tokens"

    def custody(self, pin: str = PIN) -> TokenCustody:
        return TokenCustody(module(), self.label, lambda: pin)

    @property
    def access(self) -> TokenCustodyAccess:
        return TokenCustodyAccess(module(), self.label, PIN)

    def session(self) -> pkcs11.Session:
        """Behind the custody's back."""
        library = pkcs11.lib(str(module()))
        return library.get_token(token_label=self.label).open(rw=True)

    def restart(self) -> None:
        """What pulling the token out and pushing it in again does: every session and login is gone."""
        pkcs11.lib(str(module())).reinitialize()


def make_token(folder: Path, monkeypatch: pytest.MonkeyPatch, label: str = LABEL) -> SoftToken:
    """Initialise a token in a new folder, and point SoftHSM2 there for as long as the test lasts."""
    tool = shutil.which("softhsm2-util")
    if tool is None:
        pytest.fail("SoftHSM2 is missing: apt-get install -y softhsm2")
    (folder / "tokens").mkdir(parents=True)
    configuration = folder / "softhsm2.conf"
    configuration.write_text(
        f"directories.tokendir = {folder / 'tokens'}\nobjectstore.backend = file\nlog.level = ERROR\n"
    )
    monkeypatch.setenv("SOFTHSM2_CONF", str(configuration))
    subprocess.run(
        [tool, "--init-token", "--free", "--label", label, "--so-pin", _OFFICER_PIN, "--pin", PIN],
        check=True,
        capture_output=True,
        env=os.environ,
    )
    token = SoftToken(folder, label)
    token.restart()  # the library may have read another test's configuration
    return token
