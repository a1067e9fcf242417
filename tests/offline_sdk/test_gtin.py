import pytest

from offline_sdk import gtin


@pytest.mark.parametrize(
    ("first13", "digit"),
    [("0690123456789", "2"), ("0950600013435", "2"), ("0629104150021", "3"), ("0000000000000", "0"), ("9" * 13, "7")],
)
def test_check_digit_follows_gs1(first13: str, digit: str) -> None:
    assert gtin.check_digit(first13) == digit
    assert gtin.is_valid(first13 + digit)


@pytest.mark.parametrize(
    "first13", ["", "069012345678", "06901234567892", "069012345678x", "０" * 13, "٠" * 13, "1\n" * 6]
)
def test_check_digit_of_anything_but_13_ascii_digits_is_an_error(first13: str) -> None:
    with pytest.raises(ValueError, match="13 ASCII digits"):
        gtin.check_digit(first13)


@pytest.mark.parametrize("wrong", [str(digit) for digit in range(10) if digit != 2])
def test_every_other_check_digit_is_wrong(wrong: str) -> None:
    assert not gtin.is_valid("0690123456789" + wrong)


@pytest.mark.parametrize(
    "value", ["", "6901234567892", "06901234567892\n", "０" * 14, "٠" * 14, None, 6901234567892, b"0" * 14]
)
def test_anything_but_14_ascii_digits_is_not_a_gtin(value: object) -> None:
    assert not gtin.is_valid(value)  # type: ignore[arg-type]


@pytest.mark.parametrize("at", range(14))
def test_every_single_wrong_digit_is_found(at: int) -> None:
    right = "09506000134352"
    for digit in "0123456789":
        changed = right[:at] + digit + right[at + 1 :]
        assert gtin.is_valid(changed) == (changed == right)
