"""The systemd unit: systemd itself accepts it where it is installed, and what shuts the scanner in is all there."""

import shutil
import subprocess
import sys
from pathlib import Path

from offline_sdk.scanner import home, main

UNIT = Path(main.__file__).with_name("fanxing-scanner.service")
SHUT_IN = {
    "NoNewPrivileges": "yes",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "PrivateTmp": "yes",
    "CapabilityBoundingSet": "",
    "DevicePolicy": "closed",
    "MemoryDenyWriteExecute": "yes",
    "RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX",
    "RestrictNamespaces": "yes",
    "UMask": "0077",
}


def settings(section: str) -> dict[str, list[str]]:
    """The settings of a section, each with all its values."""
    found: dict[str, list[str]] = {}
    inside = ""
    for line in UNIT.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            inside = line.strip("[]")
        elif inside == section and "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def test_scanner_is_shut_in() -> None:
    service = settings("Service")
    assert {name: service[name][-1] for name in SHUT_IN} == SHUT_IN
    assert service["User"] == ["fanxing-scanner"]


def test_it_waits_for_no_network() -> None:
    assert not any("network" in value for values in settings("Unit").values() for value in values)


def test_its_folder_is_the_one_that_systemd_makes() -> None:
    service = settings("Service")
    assert service["StateDirectory"] == ["fanxing-scanner"]
    assert f"{home.HOME_VARIABLE}=%S/fanxing-scanner" in service["Environment"]


def test_what_a_restart_cannot_mend_is_not_restarted() -> None:
    statuses = set(settings("Service")["RestartPreventExitStatus"][0].split())
    assert statuses == {str(main.EXIT_UNUSABLE), str(main.EXIT_NOT_ENROLLED)}


def test_systemd_accepts_it(tmp_path: Path) -> None:
    program = settings("Service")["ExecStart"][0].split()[0]
    unit = tmp_path / UNIT.name
    # systemd wants the program to be there.
    unit.write_text(UNIT.read_text(encoding="utf-8").replace(program, sys.executable), encoding="utf-8")
    tool = shutil.which("systemd-analyze")
    if tool is None:  # a system without systemd has no use for the unit, and the tests above read it
        return
    checked = subprocess.run([tool, "verify", unit], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")
