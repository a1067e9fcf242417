"""Units of measurement by their codes, so that 20 CEL and 68 FAH are one temperature (UN/CEFACT Recommendation 20).

Only units that convert by a factor, and temperatures, which have a zero of their own as well. A code that is not here
is comparable with itself alone.
"""

import math
from collections.abc import Mapping
from typing import Final

_TOLERANCE: Final = 1e-9
"""Relative: what converting costs a double."""
_KELVIN_OF_CELSIUS: Final = 273.15
_RANKINE_OF_FAHRENHEIT: Final = 459.67

# By the quantity that is measured: each unit in the first one.
_FACTORS: Final[Mapping[str, Mapping[str, float]]] = {
    "mass": {
        "KGM": 1, "GRM": 1e-3, "MGM": 1e-6, "MC": 1e-9, "TNE": 1e3, "DTN": 100, "LBR": 0.45359237,
        "ONZ": 0.028349523125, "STI": 6.35029318, "STN": 907.18474, "LTN": 1_016.0469088,
    },
    "length": {
        "MTR": 1, "DMT": 0.1, "CMT": 0.01, "MMT": 1e-3, "4H": 1e-6, "C45": 1e-9, "A11": 1e-10, "KMT": 1e3,
        "INH": 0.0254, "FOT": 0.3048, "YRD": 0.9144, "SMI": 1_609.344, "NMI": 1_852,
    },
    "area": {
        "MTK": 1, "DMK": 0.01, "CMK": 1e-4, "MMK": 1e-6, "KMK": 1e6, "HAR": 1e4, "ARE": 100, "INK": 6.4516e-4,
        "FTK": 0.09290304, "YDK": 0.83612736,
    },
    "volume": {
        "MTQ": 1, "LTR": 1e-3, "DMQ": 1e-3, "DLT": 1e-4, "CLT": 1e-5, "MLT": 1e-6, "CMQ": 1e-6, "MMQ": 1e-9,
        "4G": 1e-9, "HLT": 0.1, "GLL": 0.003785411784, "GLI": 0.00454609, "PTI": 0.00056826125,
        "OZA": 2.95735295625e-5, "OZI": 2.84130625e-5, "FTQ": 0.028316846592, "INQ": 1.6387064e-5,
    },
    "time": {
        "SEC": 1, "MIN": 60, "HUR": 3_600, "DAY": 86_400, "WEE": 604_800, "C26": 1e-3, "B98": 1e-6, "C47": 1e-9,
    },
    "speed": {"MTS": 1, "KMH": 1 / 3.6, "HM": 0.44704, "KNT": 1_852 / 3_600, "2M": 0.01, "C16": 1e-3, "FS": 0.3048},
    "pressure": {
        "PAL": 1, "A97": 100, "KPA": 1e3, "MPA": 1e6, "BAR": 1e5, "MBR": 100, "ATM": 101_325, "74": 1e-3,
        "HN": 133.322387415,
    },
    "voltage": {"VLT": 1, "2Z": 1e-3, "D82": 1e-6, "KVT": 1e3},
    "current": {"AMP": 1, "4K": 1e-3, "B84": 1e-6, "B22": 1e3},
    "power": {"WTT": 1, "C31": 1e-3, "KWT": 1e3, "MAW": 1e6, "A90": 1e9},
    "energy": {"JOU": 1, "C15": 1e-3, "KJO": 1e3, "3B": 1e6, "WHR": 3_600, "KWH": 3.6e6, "MWH": 3.6e9},
    "frequency": {"HTZ": 1, "KHZ": 1e3, "MHZ": 1e6, "A86": 1e9},
    "ratio": {"C62": 1, "P1": 0.01, "59": 1e-6, "61": 1e-9},
    "force": {"NEW": 1, "B47": 1e3},
    "angle": {"C81": 1, "DD": math.pi / 180, "D61": math.pi / 10_800, "D62": math.pi / 648_000},
    "density": {"KMQ": 1, "GL": 1, "23": 1e3, "M1": 1e-3, "A93": 1e-3, "GP": 1e-6},
    "amount": {"C34": 1, "C18": 1e-3, "FH": 1e-6},
    "flow": {"MQS": 1, "MQH": 1 / 3_600, "L2": 1e-3 / 60},
    "resistance": {"OHM": 1, "B49": 1e3, "B75": 1e6},
    "acceleration": {"MSK": 1, "K40": 9.80665},
}  # fmt: skip
_UNITS: Final = {code: (quantity, factor) for quantity, factors in _FACTORS.items() for code, factor in factors.items()}


def comparable(value: float, code: str) -> tuple[str, float]:
    """What is measured and how much of it, in a unit that is the same for all codes of the quantity."""
    if code == "CEL":
        return "temperature", value + _KELVIN_OF_CELSIUS
    if code == "FAH":
        return "temperature", (value + _RANKINE_OF_FAHRENHEIT) * 5 / 9
    if code == "A48":
        return "temperature", value * 5 / 9
    if code == "KEL":
        return "temperature", value
    quantity, factor = _UNITS.get(code, (f"unit {code}", 1))
    return quantity, value * factor


def is_equal(one: float, other: float) -> bool:
    """Whether two amounts are the same but for what converting costs."""
    return math.isclose(one, other, rel_tol=_TOLERANCE, abs_tol=1e-12)
