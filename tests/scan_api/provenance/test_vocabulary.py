"""Standard words in their four writings."""

import pytest

from scan_api.provenance.vocabulary import BUSINESS_STEPS, DISPOSITIONS, MEASUREMENTS, bare_word, web_uri


@pytest.mark.parametrize(
    ("urn", "uri"),
    [
        ("urn:epcglobal:cbv:bizstep:shipping", "https://ref.gs1.org/cbv/BizStep-shipping"),
        ("urn:epcglobal:cbv:disp:in_transit", "https://ref.gs1.org/cbv/Disp-in_transit"),
        ("urn:epcglobal:cbv:btt:po", "https://ref.gs1.org/cbv/BTT-po"),
        ("urn:epcglobal:cbv:sdt:location", "https://ref.gs1.org/cbv/SDT-location"),
        ("urn:epcglobal:cbv:er:incorrect_data", "https://ref.gs1.org/cbv/ER-incorrect_data"),
        ("urn:epcglobal:cbv:bt:4012345000009:1", "urn:epcglobal:cbv:bt:4012345000009:1"),
        ("urn:epcglobal:cbv:bizstep:", "urn:epcglobal:cbv:bizstep:"),
        ("shipping", "shipping"),
    ],
)
def test_a_urn_stands_for_a_web_uri(urn: str, uri: str) -> None:
    assert web_uri(urn) == uri


@pytest.mark.parametrize(
    "text",
    [
        "urn:epcglobal:cbv:bizstep:shipping",
        "cbv:BizStep-shipping",
        "https://ref.gs1.org/cbv/BizStep-shipping",
        "shipping",
    ],
)
def test_json_has_the_bare_word(text: str) -> None:
    assert bare_word(text, BUSINESS_STEPS) == "shipping"


@pytest.mark.parametrize(
    "text", ["urn:epcglobal:cbv:bizstep:flying", "cbv:Disp-shipping", "https://a.example/x-shipping"]
)
def test_what_is_no_standard_word_stays(text: str) -> None:
    assert bare_word(text, BUSINESS_STEPS) == text
    assert bare_word(text, DISPOSITIONS) == text


@pytest.mark.parametrize(
    "text", ["gs1:Temperature", "https://gs1.org/voc/Temperature", "https://ref.gs1.org/voc/Temperature"]
)
def test_measurements_are_words_of_the_web_vocabulary(text: str) -> None:
    assert bare_word(text, MEASUREMENTS) == "Temperature"
