"""Which passwords are taken: long ones that are not among the first that somebody would try."""

import pytest

import passwords

SHORT = "Use a password of at least 12 characters."
GUESSED = "This password is among the first that somebody would try. Use another one, such as four unrelated words."
OWN = "This password is little more than your name, your address or the name of this site. Use another one."


@pytest.mark.parametrize(
    ("password", "words"),
    [
        ("", SHORT),
        ("elevenchars", SHORT),
        ("twelve chars", ""),
        ("Nx7 Nx7 Nx7 Qy", ""),
        ("a lamp, a road, a goat", ""),
        ("пароль из пяти слов тут", ""),
        ("🦊🐻🐼🐨🐯🦁🐮🐷🐸🐵🐔🐧", ""),
        ("Q" * 7 + "uite " * 200 + "long", ""),
        ("x1 y2 z3 w4 " * 85 + "12345", "Use a shorter password: this one takes more than 1,024 bytes."),
        ("ü1 ÿ2 ß3 é4 " * 65, "Use a shorter password: this one takes more than 1,024 bytes."),
        ("password1234", GUESSED),
        ("PASSWORD!2026", GUESSED),
        ("passwordpassword", GUESSED),
        ("123456789012", GUESSED),
        ("109876543210", GUESSED),
        ("qwertyuiopasdf", GUESSED),
        ("zyxwvutsrqpo", GUESSED),
        ("aaaaaaaaaaaaaa", GUESSED),
        ("121212121212121", GUESSED),
        ("1qaz2wsx3edc4rfv", GUESSED),
        ("standing2026!", OWN),
        ("AdaWinter2026", OWN),
        ("ada.winter@example.org", OWN),
        ("ada winter likes rivers", ""),
    ],
)
def test_a_password_is_taken_or_it_is_said_why_not(password: str, words: str) -> None:
    assert passwords.trouble(password, "Ada Winter", "ada.winter@example.org", "Standing") == words


def test_the_list_has_some_thousand_passwords_in_small_letters_each_once() -> None:
    lines = passwords._LIST.read_text(encoding="utf-8").splitlines()
    assert 3_000 < len(lines) == len(set(lines))
    assert [line for line in lines if line != line.casefold() or " " in line] == []
