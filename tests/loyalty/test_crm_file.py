"""Reading a CRM's export: encodings, columns, and every row judged without being repeated."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loyalty import crm_file
from loyalty.crm_file import (
    AHEAD_MAX,
    EXPERIENCE_MAX,
    JOINED_MIN,
    POINTS_MAX,
    BadRow,
    CrmFileInvalid,
    Reader,
    Reason,
    Row,
    Rules,
    merged,
)
from loyalty.profiles import NAME_CHARACTERS_MAX
from tests.loyalty.conftest import NOW

HEADER = "phone,name,birthday,points,experience,tier,joined_at,consent_privacy"
GOOD = "13800138000,张三,05-01,100,20,gold,2024-05-01,v1"


def read(path: Path, text: str, encoding: str = "utf-8", chunk: int = 1000) -> tuple[list[Row], list[BadRow], Reader]:
    path.write_bytes(text.encode(encoding))
    found = crm_file.look_through(path)
    good, bad = [], []
    with crm_file.open_text(found) as opened:
        reader = Reader(found, opened)
        rules = Rules(reader.columns, {"gold": 2, "金卡": 2}, {"privacy": frozenset({"v1"})}, NOW)
        for rows in reader.chunks(chunk):
            some, wrong = crm_file.check_rows(rows, rules)
            good += some
            bad += wrong
    return good, bad, reader


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"], ids=["comma", "semicolon", "tab"])
def test_a_row_is_read_in_every_encoding(tmp_path: Path, encoding: str, delimiter: str) -> None:
    text = f"{HEADER}\r\n{GOOD}\r\n".replace(",", delimiter)
    good, bad, _ = read(tmp_path / "crm.csv", text, encoding)
    assert bad == []
    assert good == [
        Row(
            "+8613800138000",
            "张三",
            "05-01",
            100,
            20,
            2,
            datetime(2024, 4, 30, 16, tzinfo=UTC),
            (("privacy", "v1"),),
        )
    ]


def test_the_headings_may_be_chinese_and_other_columns_are_ignored(tmp_path: Path) -> None:
    good, bad, reader = read(
        tmp_path / "crm.csv", '会员等级,备注,手机号,积分\n金卡,"一, 二",138 0013 8000,"1,234.00"\n'
    )
    assert (bad, reader.columns.ignored) == ([], ("备注",))
    assert [(row.phone_e164, row.points, row.tier_rank) for row in good] == [("+8613800138000", 1234, 2)]


@pytest.mark.parametrize(
    ("field", "text", "reason"),
    [
        ("phone", "12345", Reason.PHONE),
        ("phone", "", Reason.PHONE),
        ("name", "x" * (NAME_CHARACTERS_MAX + 1), Reason.NAME),
        ("name", "a\x07b", Reason.NAME),
        ("birthday", "02-30", Reason.BIRTHDAY),
        ("points", "-1", Reason.POINTS),
        ("points", "12.5", Reason.POINTS),
        ("points", "1e3", Reason.POINTS),
        ("points", str(POINTS_MAX + 1), Reason.POINTS),
        ("points", "9" * 5000, Reason.POINTS),
        ("experience", str(EXPERIENCE_MAX + 1), Reason.EXPERIENCE),
        ("tier", "platinum", Reason.TIER),
        ("joined_at", "yesterday", Reason.JOINED_AT),
        ("joined_at", "0001-01-01", Reason.JOINED_AT),
        ("joined_at", "9999-12-31T23:59:59-14:00", Reason.JOINED_AT),
        ("joined_at", "2024-13-01", Reason.JOINED_AT),
        ("joined_at", (JOINED_MIN - timedelta(seconds=1)).isoformat(), Reason.JOINED_AT),
        ("joined_at", (NOW + AHEAD_MAX + timedelta(seconds=1)).isoformat(), Reason.JOINED_AT),
        ("consent_privacy", "v2", Reason.CONSENT),
    ],
    ids=lambda value: value[:12] if isinstance(value, str) else str(value),
)
def test_a_wrong_field_is_told_by_line_column_and_reason(tmp_path: Path, field: str, text: str, reason: Reason) -> None:
    values = dict(zip(HEADER.split(","), GOOD.split(","), strict=True)) | {field: text}
    good, bad, _ = read(tmp_path / "crm.csv", f"{HEADER}\n{GOOD}\n{','.join(values.values())}\n{GOOD}\n")
    assert len(good) == 2
    last = "" if field == "phone" else "8000"
    assert bad == [BadRow(3, field, reason, last)]


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("name", "x" * NAME_CHARACTERS_MAX),
        ("name", ""),
        ("birthday", "1999/2/29".replace("1999", "2000")),
        ("birthday", ""),
        ("points", str(POINTS_MAX)),
        ("points", ""),
        ("experience", str(EXPERIENCE_MAX)),
        ("tier", "GOLD"),
        ("tier", ""),
        ("joined_at", JOINED_MIN.isoformat()),
        ("joined_at", (NOW + AHEAD_MAX).isoformat()),
        ("joined_at", "2024/5/1 8:30"),
        ("joined_at", "2024年5月1日"),
        ("joined_at", ""),
        ("consent_privacy", ""),
    ],
)
def test_a_field_at_its_limit_or_empty_is_good(tmp_path: Path, field: str, text: str) -> None:
    values = dict(zip(HEADER.split(","), GOOD.split(","), strict=True)) | {field: text}
    good, bad, _ = read(tmp_path / "crm.csv", f"{HEADER}\n{','.join(values.values())}\n")
    assert (len(good), bad) == (1, [])


def test_a_row_with_other_fields_than_the_header_is_left_out(tmp_path: Path) -> None:
    good, bad, _ = read(tmp_path / "crm.csv", "name,phone\nx,13800138000\nx,13800138001,9\nx\n\nx,13800138002\n")
    assert [row.phone_e164[-1] for row in good] == ["0", "2"]
    assert bad == [BadRow(3, "", Reason.FIELDS, "8001"), BadRow(4, "", Reason.FIELDS, "")]


def test_the_report_tells_four_digits_and_no_more(tmp_path: Path) -> None:
    _, bad, _ = read(tmp_path / "crm.csv", "phone,points\n13800138000,-1\n1234567,1\n")
    assert [crm_file.report_line(one) for one in bad] == ["2,points,points,8000\n", "3,phone,phone,\n"]


_NUMBERS = st.sampled_from(
    ("", "0", "007", "12", "100000000", "100000001", "0000000012", "1,234", "5.00", "-1", "1_0", "٣")
)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(("13800138000", "+8613900139000", "138 0013 8001", "1")), _NUMBERS), min_size=1)
)
def test_rows_are_judged_the_same_alone_and_together(fields: list[tuple[str, str]]) -> None:
    columns = crm_file.Columns(2, {"phone": 0, "points": 1}, {}, ())
    rules = Rules(columns, {}, {}, NOW)
    rows = [(number, list(one)) for number, one in enumerate(fields)]
    alone = [crm_file.check_rows([row], rules) for row in rows]
    together = crm_file.check_rows(rows, rules)
    assert together == ([row for good, _ in alone for row in good], [row for _, bad in alone for row in bad])


def test_chunks_end_where_they_always_do_and_empty_lines_stop_nothing(tmp_path: Path) -> None:
    text = "phone\n" + "\n" * 7 + "".join(f"138001380{number:02}\n" for number in range(10))
    good, bad, _ = read(tmp_path / "crm.csv", text, chunk=3)
    assert (len(good), bad) == (10, [])


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "empty"),
        (b"name,points\nx,1\n", "phone"),
        (b"phone,mobile\n1,2\n", "two columns"),
        (b'phone\n"13800138000\n13800138001\n', "line"),
        ("phone\n13800138000\n".encode("utf-16"), "UTF-8"),
        (b"phone\n\xff\xff\xff\n", "UTF-8"),
        (("phone," + ",".join(map(str, range(200)))).encode(), "columns"),
    ],
    ids=["empty", "no phone", "two phones", "open quote", "utf-16", "no text", "too wide"],
)
def test_a_file_that_is_no_export_is_refused(tmp_path: Path, content: bytes, told: str) -> None:
    with pytest.raises(CrmFileInvalid, match=told):
        read(tmp_path / "crm.csv", content.decode("latin-1"), "latin-1")


def test_rows_of_one_number_say_the_higher_of_each_balance_whatever_their_order() -> None:
    early, late = NOW - timedelta(days=9), NOW - timedelta(days=1)
    one = Row("+8613800138000", None, "05-01", 500, 10, 1, late, (("privacy", "v1"),))
    other = Row("+8613800138000", "张三", None, 300, 20, 2, early, (("privacy", "v0"), ("marketing", "v1")))
    both = merged(one, other)
    assert (both.points, both.experience, both.tier_rank, both.joined_at) == (500, 20, 2, early)
    assert (both.name, both.birthday) == ("张三", "05-01")
    assert both.consents == (("privacy", "v1"), ("marketing", "v1"))
    assert merged(both, both) == both
    turned = merged(other, one)
    assert (turned.points, turned.experience, turned.tier_rank, turned.joined_at) == (500, 20, 2, early)
