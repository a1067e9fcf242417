"""How fast codes are issued: signed and written, and drawn."""

import itertools
from pathlib import Path

import qrcode
from nacl.bindings import crypto_sign, crypto_sign_seed_keypair

from codes import pipeline, qr
from codes.exports.csv import CsvExport
from tests.bench.factory import Factory
from tests.bench.figures import Figure, figure, in_turns, rate_of

ROUNDS = 5
CODES = 20_000
SYMBOLS = 12


def codes(folder: Path) -> list[Figure]:
    """A whole order to a CSV file, beside a loop that does nothing but sign the same messages."""
    factory = Factory(folder / "keys")
    order = factory.order(CODES)
    messages = factory.messages(order)
    _, secret = crypto_sign_seed_keypair(bytes(range(32)))
    numbers = itertools.count()

    def export() -> None:
        with CsvExport(order, folder / str(next(numbers))) as file:
            for chunk in pipeline.generate(order, factory.scheme, factory.sign):
                file.add(chunk)

    def bare() -> None:
        for message in messages:
            crypto_sign(message, secret)

    ours, yardstick = in_turns(ROUNDS, lambda: rate_of(CODES, export), lambda: rate_of(CODES, bare))
    return [figure("codes to CSV, file custody, one process", ours, "codes/s", "bare PyNaCl signing", yardstick)]


def symbols(folder: Path) -> list[Figure]:
    """QR symbols with explicit segments, beside `qrcode` left to find segments itself; both try all eight masks."""
    texts = Factory(folder / "keys").texts(SYMBOLS)

    def explicit() -> None:
        for text in texts:
            qr.symbol(text)

    def automatic() -> None:
        for text in texts:
            code = qrcode.QRCode(error_correction=qrcode.constants.ERROR_CORRECT_M, border=0)
            code.add_data(text)
            code.make(fit=True)

    ours, yardstick = in_turns(ROUNDS, lambda: rate_of(SYMBOLS, explicit), lambda: rate_of(SYMBOLS, automatic))
    return [figure("QR symbols, best mask", ours, "symbols/s", "qrcode, automatic segments", yardstick)]
