"""forkd/config/lexer.py."""

from __future__ import annotations

import pytest

from forkd.config.lexer import Kind, tokenize


def kinds(text: str) -> list[Kind]:
    return [token.kind for token in tokenize(text, "f").tokens[:-1]]


def texts(text: str) -> list[str]:
    return [token.text for token in tokenize(text, "f").tokens[:-1]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.b = 1", [Kind.NAME, Kind.ASSIGN, Kind.INTEGER]),
        ('a.b="1"c.d', [Kind.NAME, Kind.ASSIGN, Kind.STRING, Kind.NAME]),
        ("a:=1", [Kind.NAME, Kind.FORCE, Kind.INTEGER]),
        ("a+=1+2", [Kind.NAME, Kind.APPEND, Kind.INTEGER, Kind.PLUS, Kind.INTEGER]),
        ('("k"=>1,)', [Kind.LIST_OPEN, Kind.STRING, Kind.ARROW, Kind.INTEGER, Kind.COMMA,
                       Kind.LIST_CLOSE]),
        ('$HTTP["x"]', [Kind.DOLLAR, Kind.NAME, Kind.FIELD_OPEN, Kind.STRING, Kind.FIELD_CLOSE]),
        ("a\t \xc2\xa0b", [Kind.NAME, Kind.NAME]),
        ("a\nb\rc\r\nd", [Kind.NAME, Kind.NEWLINE] * 3 + [Kind.NAME]),
        ("a # b = 1\nc", [Kind.NAME, Kind.NEWLINE, Kind.NAME]),
        ("a # b\rc", [Kind.NAME, Kind.NEWLINE, Kind.NAME]),
        ("", []),
    ],
)
def test_kinds(text: str, expected: list[Kind]) -> None:
    assert kinds(text) == expected


@pytest.mark.parametrize("operator", ["==", "!=", "=~", "!~", "=^", "=$"])
def test_condition_operators_need_no_blanks(operator: str) -> None:
    tokens = tokenize(f'x{operator}"v"', "f").tokens
    assert [token.text for token in tokens[:-1]] == ["x", operator, "v"]
    assert tokens[1].kind is Kind.OPERATOR


@pytest.mark.parametrize(
    "word",
    ["include", "include_shell", "global", "else", "if", "elif", "elsif", "elseif"],
)
def test_keywords_are_whole_words_in_lower_case(word: str) -> None:
    assert kinds(word) == [Kind.KEYWORD]
    for name in (word.upper(), f"{word}x", f"var.{word}", f"{word}.a"):
        assert kinds(name) == [Kind.NAME]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r'"x\"y"', 'x"y'),
        (r'"x\ny"', r"x\ny"),
        (r'"\t\\"x"', r'\t\"x'),
        ('"a\r\nb"', "a\r\nb"),
        ('"#no comment"', "#no comment"),
        ('""', ""),
        ('"\xff"', "\xff"),
    ],
)
def test_string_values(text: str, value: str) -> None:
    assert tokenize(text, "f").tokens[0].text == value


@pytest.mark.parametrize("text", ['"x', '"x\\"'])
def test_unclosed_string_takes_the_rest(text: str) -> None:
    tokens = tokenize(f"{text}\na = 1", "f").tokens
    assert [token.kind for token in tokens] == [Kind.BAD, Kind.END]
    assert tokens[0].text == "missing closing quote"


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("9a", "neither a number nor a name"),
        ("0x10", "neither a number nor a name"),
        ("1.5", "neither a number nor a name"),
        ("-1", "neither a number nor a name"),
        (":", "':='"),
        (";", "nothing between"),
        ("!", "'!='"),
        ("'", "double quotes"),
        ("//", "comments begin with '#'"),
        ("/*", "comments begin with '#'"),
        ("\x0c", "0x0c"),
        ("\x0b", "0x0b"),
        ("\xe2\x80\x9c", "plain double quotes"),
        ("\xc3\xa9", "unexpected character '\xc3\xa9'"),
        ("\xff", "unexpected character"),
    ],
)
def test_bad_tokens_say_why(text: str, part: str) -> None:
    token = tokenize(text, "f").tokens[0]
    assert token.kind is Kind.BAD
    assert part in token.text


def test_what_follows_a_bad_character_is_read_on() -> None:
    assert texts("a;b")[::2] == ["a", "b"]


def test_nul_byte_anywhere_is_all_that_is_said() -> None:
    tokens = tokenize('a = "x"\nb = "\0"', "f").tokens
    assert [token.kind for token in tokens] == [Kind.BAD, Kind.END]
    assert (tokens[0].place.line, tokens[0].place.column) == (2, 6)


def test_places_count_every_form_of_line_end_once() -> None:
    tokens = tokenize('a\nb\rc\r\n\r\n  "x\r\ny" d', "f").tokens
    places = {
        token.text: (token.place.line, token.place.column)
        for token in tokens
        if token.kind in (Kind.NAME, Kind.STRING)
    }
    assert places == {"a": (1, 1), "b": (2, 1), "c": (3, 1), "x\r\ny": (5, 3), "d": (6, 4)}
    assert tokens[0].place.file == "f"


def test_end_stands_behind_the_last_token() -> None:
    end = tokenize("a = 1 # more\n\n", "f").tokens[-1]
    assert (end.kind, end.place.line, end.place.column) == (Kind.END, 1, 6)


def test_comments_know_where_they_stand() -> None:
    comments = tokenize('#a\nx = (1, #b\n  #c\n) #d\ny = "\n" #e', "f").comments
    assert [(c.text, c.behind_code, c.in_list) for c in comments] == [
        ("a", False, False),
        ("b", True, True),
        ("c", False, True),
        ("d", True, False),
        ("e", True, False),
    ]
