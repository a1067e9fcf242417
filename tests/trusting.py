"""What a scanner makes of a trust file that it got for its pin."""

from pathlib import Path

from offline_sdk.bundle import Bundle
from offline_sdk.root import read_pin
from offline_sdk.trust_store import read_trust


def trusted(content: bytes, pin_file: Path) -> Bundle:
    """The bundle of a trust file, followed from the pin in this file."""
    return read_trust(content, read_pin(pin_file.read_bytes())).held_bundle
