"""Tokens to the syntax tree of one file, by recursive descent (config.md 2, 13).

A syntax error is recorded and the parser goes on at the next thing that looks like the beginning of
a statement, so that one run shows them all.  What lighttpd's parser skips by accident is an error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from .diagnostics import Findings, quoted, suggestion
from .lexer import BYTE_ORDER_MARK, KEYWORDS, Kind, Lexed, Token, tokenize
from .lost_lines import suspicion
from .syntax import (
    Assignment,
    Branch,
    Chain,
    Constant,
    Element,
    Expression,
    Gap,
    Global,
    Include,
    ListExpression,
    Reference,
    Statement,
    Sum,
    Test,
)
from .tree import Place

MAX_INTEGER = 2**31 - 1
MAX_NESTING = 32  # of blocks or of parentheses; nobody writes ten

_ELSE_WORDS = frozenset(("else", "elif", "elsif", "elseif"))
_ASSIGNMENTS: dict[Kind, Literal["=", ":=", "+="]] = {
    Kind.ASSIGN: "=",
    Kind.FORCE: ":=",
    Kind.APPEND: "+=",
}
_OPERATORS = "== != =~ !~ =^ =$"


def parse(text: str, file: str, findings: Findings) -> tuple[Statement, ...]:
    """The statements of *text*, which stands in *file*; errors and warnings go to *findings*."""
    if text.startswith(BYTE_ORDER_MARK):
        findings.warning(Place(file, 1, 1), "byte order mark skipped")
        text = text[len(BYTE_ORDER_MARK) :]
    lexed = tokenize(text, file)
    parser = _Parser(lexed, findings)
    statements = parser.file()
    _suspect(lexed, findings, parser.last_error)
    return statements


def parse_expression(text: str, file: str, findings: Findings) -> Expression | None:
    """The one expression that *text* is, or None after an error."""
    return _Parser(tokenize(text, file), findings).only_expression()


def _suspect(lexed: Lexed, findings: Findings, last_error: int) -> None:
    """config.md 13.4: a warning when the file parses, a note to the error when it does not.

    *last_error* is the line of the last error, 0 for none.
    """
    for comment in lexed.comments:
        suspected = suspicion(comment)
        if suspected is None:
            continue
        if not last_error:
            findings.warning(comment.place, suspected)
        elif comment.place.line <= last_error:
            findings.note(comment.place, suspected)


class _SyntaxError(Exception):
    def __init__(self, place: Place, text: str) -> None:
        super().__init__(text)
        self.place = place


class _Parser:
    def __init__(self, lexed: Lexed, findings: Findings) -> None:
        self._tokens = lexed.tokens
        self._findings = findings
        self._position = 0
        self._lists: list[Token] = []
        """The parentheses that are open; inside them newlines are blanks."""
        self._blocks = 0
        self.last_error = 0
        """Line of the error that stands last in the text; 0 while there is none."""

    # Files, blocks, statements

    def file(self) -> tuple[Statement, ...]:
        statements: list[Statement] = []
        while True:
            statements += self._statements()
            if self._next.kind is Kind.END:
                return tuple(statements)
            stray = self._take()
            if not self.last_error:  # else it may belong to what was skipped
                self._error(stray.place, "'}' closes nothing")

    def only_expression(self) -> Expression | None:
        try:
            expression = self._expression("':='")
            self._skip_newlines()
            self._expect(Kind.END, "the end of the value")
        except _SyntaxError as error:
            self._error(error.place, str(error))
            return None
        return expression

    def _statements(self) -> list[Statement]:
        """Up to a '}' or the end, which is left."""
        statements: list[Statement] = []
        while True:
            while self._next.kind in (Kind.NEWLINE, Kind.COMMA):
                self._take()
            if self._next.kind in (Kind.BLOCK_CLOSE, Kind.END):
                return statements
            statements.append(self._or_gap(self._statement))

    def _or_gap(self, parse: Callable[[], Statement]) -> Statement:
        begin = self._position
        try:
            return parse()
        except _SyntaxError as error:
            self._error(error.place, str(error))
            self._recover(begin)
            return self._remains(begin)

    def _remains(self, begin: int) -> Statement:
        """What stands in the tree for the broken statement that began at *begin*."""
        start = self._tokens[begin]
        operator = self._after(begin).kind
        if start.kind is Kind.NAME and operator in _ASSIGNMENTS:
            return Assignment(start.text, _ASSIGNMENTS[operator], None, start.place)
        return Gap(start.place)

    def _statement(self) -> Statement:
        token = self._next
        if token.kind is Kind.NAME:
            return self._assignment()
        if self._at_condition:
            return self._chain()
        if token.kind is Kind.KEYWORD:
            return self._keyword_statement()
        raise self._unexpected(token, _STATEMENT_HINTS.get(token.kind, "a statement was expected"))

    def _keyword_statement(self) -> Statement:
        keyword = self._take()
        if keyword.text == "global":
            return Global(self._block("global"), keyword.place)
        if keyword.text in _ELSE_WORDS:
            return self._stray_else(keyword)
        operand = self._expression(keyword.text)
        return Include(operand, keyword.text == "include_shell", keyword.place)

    def _assignment(self) -> Statement:
        name = self._take()
        self._skip_newlines()
        operator = self._next
        if operator.kind not in _ASSIGNMENTS:
            raise self._no_assignment(name, operator)
        self._take()
        value = self._expression(f"{name.text} {operator.text}")
        if self._next.kind in (Kind.STRING, Kind.INTEGER, Kind.LIST_OPEN):
            raise self._unexpected(self._next, "values are joined with '+'")
        return Assignment(name.text, _ASSIGNMENTS[operator.kind], value, name.place)

    def _no_assignment(self, name: Token, found: Token) -> _SyntaxError:
        if found.kind is Kind.BAD:
            return self._unexpected(found, "")
        if found.kind is Kind.OPERATOR:
            return self._unexpected(found, "an assignment is written '=', ':=' or '+='")
        if found.kind is Kind.FIELD_OPEN:
            return self._unexpected(found, f"a condition begins with '$': ${name.text}[...]")
        hint = suggestion(name.text, KEYWORDS)
        return _SyntaxError(name.place, f"assignment operator '=' missing after {name.text}{hint}")

    def _block(self, owner: str) -> tuple[Statement, ...]:
        self._skip_newlines()
        opening = self._expect(Kind.BLOCK_OPEN, f"'{{' after {owner}")
        if self._blocks >= MAX_NESTING:
            raise _SyntaxError(opening.place, "blocks are nested too deep")
        self._blocks += 1
        statements = self._statements()
        self._blocks -= 1
        if self._next.kind is Kind.BLOCK_CLOSE:
            self._take()
        elif not self.last_error:  # else the '}' may be in what was skipped
            place = opening.place
            self._error(self._next.place, f"the '{{' of line {place.line} is never closed")
        return tuple(statements)

    # Conditions

    def _chain(self) -> Chain:
        place = self._next.place
        branches = [self._branch(place)]
        while word := self._next_else():
            if branches[-1].test is None and not branches[-1].broken:
                self._error(word.place, f"unreachable: '{word.text}' after the final 'else'")
            branches.append(self._else_branch(word))
        return Chain(tuple(branches), place)

    def _stray_else(self, word: Token) -> Gap:
        self._error(word.place, f"'{word.text}' without a condition before it")
        self._else_branch(word)
        return Gap(word.place)

    def _else_branch(self, word: Token) -> Branch:
        self._skip_newlines()
        if self._at_condition:
            return self._branch(word.place)
        return Branch(None, self._block(word.text), word.place)

    def _next_else(self) -> Token | None:
        """The else-word that goes on with the chain, taken with the newlines before it."""
        begin = self._position
        self._skip_newlines()
        if self._next.kind is Kind.KEYWORD and self._next.text in _ELSE_WORDS:
            return self._take()
        self._position = begin
        return None

    def _branch(self, place: Place) -> Branch:
        """A condition and its block; the block is read although the condition is broken."""
        test: Test | None = None
        try:
            test = self._test()
        except _SyntaxError as error:
            self._error(error.place, str(error))
            if not self._skip_to_block():
                return Branch(None, (), place, broken=True)
        return Branch(test, self._block("the condition"), place, broken=test is None)

    @property
    def _at_condition(self) -> bool:
        return self._next.kind is Kind.DOLLAR or (
            self._next.kind is Kind.KEYWORD and self._next.text == "if"
        )

    def _test(self) -> Test:
        if self._next.kind is Kind.KEYWORD:
            self._take()
            self._skip_newlines()
        dollar = self._expect(Kind.DOLLAR, "a condition, $FIELD[\"name\"], after 'if'")
        name = self._expect_on(Kind.NAME, "the name of a field after '$'")
        self._expect_on(Kind.FIELD_OPEN, f"'[' after ${name.text}")
        key = self._expect_on(Kind.STRING, f"a name in double quotes after ${name.text}[")
        self._expect_on(Kind.FIELD_CLOSE, "']'")
        quoted_key = key.text.replace('"', '\\"')
        field = f'${name.text}["{quoted_key}"]'
        self._skip_newlines()
        if self._next.kind is Kind.BAD:
            hint = f"{self._next.text}; a condition compares with one of {_OPERATORS}"
            raise _SyntaxError(self._next.place, hint)
        operator = self._expect(Kind.OPERATOR, f"one of {_OPERATORS}")
        value = self._expression(f"{field} {operator.text}")
        return Test(field, operator.text, value, dollar.place)

    def _skip_to_block(self) -> bool:
        """Go to the '{' of a broken condition; whether there is one on this line or the next."""
        self._lists.clear()
        lines = 0
        for ahead in range(self._position, len(self._tokens)):
            kind = self._tokens[ahead].kind
            lines += kind is Kind.NEWLINE
            if kind is Kind.BLOCK_OPEN:
                self._position = ahead
                return True
            if lines > 1 or kind in (Kind.BLOCK_CLOSE, Kind.END) or self._begins(ahead):
                break
        self._recover(self._position - 1)
        return False

    # Expressions

    def _expression(self, after: str) -> Expression:
        """What must follow *after* (words for a message)."""
        terms = [self._value(after)]
        while self._next.kind is Kind.PLUS:
            self._take()
            terms.append(self._value("'+'"))
        return terms[0] if len(terms) == 1 else Sum(tuple(terms), terms[0].place)

    def _value(self, after: str) -> Expression:
        self._skip_newlines()
        token = self._next
        match token.kind:
            case Kind.LIST_OPEN:
                return self._list()
            case Kind.STRING:
                return Constant(self._take().text, token.place)
            case Kind.INTEGER:
                return self._integer()
            case Kind.NAME if not self._begins(self._position):
                return Reference(self._take().text, token.place)
        raise self._unexpected(token, _VALUE_HINTS.get(token.kind, f"no value after {after}"))

    def _integer(self) -> Constant:
        token = self._take()
        value = int(token.text) if len(token.text.lstrip("0")) <= 10 else MAX_INTEGER + 1
        if value > MAX_INTEGER:
            self._error(token.place, f"integer out of range: at most {MAX_INTEGER}")
        return Constant(value, token.place)

    def _list(self) -> ListExpression:
        opening = self._take()
        if len(self._lists) >= MAX_NESTING:
            raise _SyntaxError(opening.place, "parentheses are nested too deep")
        self._lists.append(opening)
        elements: list[Element] = []
        while self._next.kind is not Kind.LIST_CLOSE:
            if self._next.kind is Kind.COMMA:
                self._take()
                continue
            elements.append(self._element())
            self._end_element()
        self._take()
        self._lists.pop()
        return ListExpression(tuple(elements), opening.place)

    def _element(self) -> Element:
        begin = self._next
        first = self._expression(f"the '(' of line {self._lists[-1].place.line}")
        if self._next.kind is not Kind.ARROW:
            return Element(None, first, begin.place)
        self._take()
        return Element(first, self._expression("'=>'"), begin.place)

    def _end_element(self) -> None:
        """A comma, which may be missing before ``"key" =>`` (config.md 13.3), or ')'."""
        token = self._next
        if token.kind in (Kind.COMMA, Kind.LIST_CLOSE):
            return
        if token.kind is Kind.STRING and self._after(self._position).kind is Kind.ARROW:
            self._findings.warning(token.place, f"missing comma before {quoted(token.text)}")
            return
        raise self._unexpected(token, _ELEMENT_HINTS.get(token.kind, "',' or ')' was expected"))

    # Tokens

    @property
    def _next(self) -> Token:
        """The token to be taken next; inside parentheses never a newline."""
        if self._lists:
            self._skip_newlines()
        return self._tokens[self._position]

    def _take(self) -> Token:
        token = self._next
        if token.kind is not Kind.END:
            self._position += 1
        return token

    def _skip_newlines(self) -> None:
        while self._tokens[self._position].kind is Kind.NEWLINE:
            self._position += 1

    def _expect(self, kind: Kind, wanted: str) -> Token:
        if self._next.kind is not kind:
            raise self._unexpected(self._next, f"{wanted} was expected")
        return self._take()

    def _expect_on(self, kind: Kind, wanted: str) -> Token:
        """Like _expect, over newlines."""
        self._skip_newlines()
        return self._expect(kind, wanted)

    def _after(self, position: int) -> Token:
        """The token behind that at *position* which is not a newline."""
        position += 1
        while self._tokens[position].kind is Kind.NEWLINE:
            position += 1
        return self._tokens[position]

    # Errors

    def _error(self, place: Place, text: str) -> None:
        self.last_error = max(self.last_error, place.line)
        self._findings.error(place, text)

    def _unexpected(self, token: Token, hint: str) -> _SyntaxError:
        if token.kind is Kind.BAD:
            return _SyntaxError(token.place, token.text)
        if token.kind is Kind.END and self._lists:
            hint = f"the '(' of line {self._lists[-1].place.line} is never closed"
        return _SyntaxError(token.place, f"unexpected {_described(token)}: {hint}")

    def _recover(self, begin: int) -> None:
        """Go on behind *begin* where a statement begins a line, or at the '}' of the block."""
        self._lists.clear()
        self._position = max(self._position, begin + (self._tokens[begin].kind is not Kind.END))
        depth = 0
        while (kind := self._tokens[self._position].kind) is not Kind.END:
            if depth == 0 and (kind is Kind.BLOCK_CLOSE or self._begins(self._position)):
                return
            depth += (kind is Kind.BLOCK_OPEN) - (kind is Kind.BLOCK_CLOSE)
            self._position += 1

    def _begins(self, position: int) -> bool:
        """Whether the token is the first of its line and seems to begin a statement."""
        if position > 0 and self._tokens[position - 1].kind is not Kind.NEWLINE:
            return False
        token = self._tokens[position]
        if token.kind is Kind.NAME:
            return self._after(position).kind in _ASSIGNMENTS
        return token.kind in (Kind.KEYWORD, Kind.DOLLAR)


def _described(token: Token) -> str:
    match token.kind:
        case Kind.STRING:
            return quoted(token.text)
        case Kind.NEWLINE | Kind.END:
            return str(token.kind.value)
        case Kind.NAME | Kind.INTEGER:
            return token.text
    return f"'{token.text}'"


_STATEMENT_HINTS = {
    Kind.PLUS: "put the '+' at the end of the line before",
    Kind.BLOCK_OPEN: "a block needs a condition, 'else' or 'global' before it",
    Kind.LIST_CLOSE: "it closes nothing",
    Kind.STRING: "a value needs a name and '=' before it",
    Kind.INTEGER: "a value needs a name and '=' before it",
    Kind.LIST_OPEN: "a value needs a name and '=' before it",
}
_VALUE_HINTS = {
    Kind.ASSIGN: "one '=' is enough",
    Kind.OPERATOR: "comparing is for conditions",
    Kind.KEYWORD: "a text stands in double quotes",
    Kind.DOLLAR: "a text stands in double quotes",
}
_ELEMENT_HINTS = {
    Kind.ASSIGN: "inside parentheses it is '=>'",
    Kind.FORCE: "inside parentheses it is '=>'",
    Kind.APPEND: "inside parentheses it is '=>'",
    Kind.STRING: "strings are joined with '+', or separated with ',' or '=>'",
    Kind.LIST_OPEN: "elements are separated with ','",
}
