"""Pounds as people type them, and pence as pages write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from money import NotMoney, parse_pounds, pounds


@pytest.mark.parametrize(
    ("typed", "pence"),
    [
        ("25", 2_500),
        ("£25", 2_500),
        ("£ 25", 2_500),
        (" 25 ", 2_500),
        ("\N{NO-BREAK SPACE}25\t", 2_500),
        ("25.00", 2_500),
        ("25.5", 2_550),
        ("19.99", 1_999),  # int(float("19.99") * 100) is 1998
        ("1.15", 115),  # and this one 114
        ("0", 0),
        ("007", 700),
        ("1,000", 100_000),
        ("£1,234,567.89", 123_456_789),
        ("10000.01", 1_000_001),
    ],
)
def test_pounds_are_understood_as_people_type_them(typed: str, pence: int) -> None:
    assert parse_pounds(typed) == pence


@pytest.mark.parametrize(
    "typed",
    [
        "", " ", "£", "-5", "+5", "1e9", "NaN", "Infinity", "0x10", "1_000", "25.005", "25.", ".50", "2 5", "25 pounds",
        "25,00", "1,00", "10,00,000", "1000,000", ",100", "££5", "5£", "$25", "€25", "25.50.50", "25\N{MINUS SIGN}",
        "💷", "٢٥", "２５", "²", "2\N{ZERO WIDTH SPACE}5", "25\0", "1" * 10,
    ],
)  # fmt: skip
def test_anything_else_is_refused_with_words_that_say_what_to_type(typed: str) -> None:
    with pytest.raises(NotMoney, match=r"Enter an amount in pounds, like 25 or 25\.50\."):
        parse_pounds(typed)


@pytest.mark.parametrize(
    ("pence", "words"),
    [
        (0, "£0"), (1, "£0.01"), (50, "£0.50"), (500, "£5"), (2_550, "£25.50"), (600_000, "£6,000"),
        (100_000_000, "£1,000,000"), (99_999_999, "£999,999.99"),
    ],
)  # fmt: skip
def test_whole_pounds_are_written_without_their_noughts(pence: int, words: str) -> None:
    assert pounds(pence) == words


@given(st.integers(min_value=0, max_value=99_999_999_999))
def test_what_a_page_writes_can_be_typed_back_to_the_penny(pence: int) -> None:
    assert parse_pounds(pounds(pence)) == pence


@given(st.one_of(st.text(), st.text("£0123456789,.-+eE٢２ \n", max_size=8)))
def test_any_text_is_an_amount_in_ascii_digits_or_is_refused(text: str) -> None:
    try:
        pence = parse_pounds(text)
    except NotMoney:
        return
    assert pence >= 0
    assert text.strip().lstrip("£").strip().replace(",", "").replace(".", "").isascii()
