"""Cuts a Go template into tokens. A problem becomes an ERROR token, always the last one.

Imports nothing heavy: `ps --format` pays for this module at start.
Source: Go's text/template documentation; texts compared with Docker 28.2.
"""

from __future__ import annotations

from teu.template.quoting import code_point, quote

# Kinds of tokens. KEYWORD covers the words below and the lone dot; CHAR any other printable sign.
(
    TEXT, LEFT, RIGHT, SPACE, PIPE, DECLARE, ASSIGN, OPEN, CLOSE, CHAR, FIELD, VARIABLE,
    IDENTIFIER, BOOL, NUMBER, CHARACTER, STRING, RAW, KEYWORD, ERROR, EOF,
) = range(21)  # fmt: skip
KEYWORDS = frozenset(
    ("block", "break", "continue", "define", "else", "end", "if", "nil", "range", "template",
     "with")
)  # fmt: skip
_SPACES = " \t\r\n"
_DIGITS = "0123456789_"
_SINGLE = {"|": PIPE, "=": ASSIGN, "(": OPEN, ")": CLOSE}
_QUOTES = {
    '"': (STRING, "unterminated quoted string"),
    "'": (CHARACTER, "unterminated character constant"),
}


class Token:
    """kind: one of the constants above. position: index of the first character in the text."""

    __slots__ = ("kind", "line", "position", "value")

    def __init__(self, kind: int, position: int, value: str, line: int) -> None:
        self.kind = kind
        self.position = position
        self.value = value
        self.line = line

    def __str__(self) -> str:
        """The token as parse errors show it."""
        if self.kind == EOF:
            return "EOF"
        if self.kind == ERROR:
            return self.value
        if self.kind == KEYWORD:
            return f"<{self.value}>"
        if len(self.value) > 10:
            return quote(self.value[:10]) + "..."
        return quote(self.value)


def tokenize(text: str) -> list[Token]:
    """All tokens of `text`; the last one is EOF or ERROR."""
    return _Lexer(text).run()


class _Lexer:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._line = 1
        self._counted = 0
        self._tokens: list[Token] = []

    def run(self) -> list[Token]:
        while self._at < len(self._text):
            if not (self._plain_text() and self._action()):
                return self._tokens
        self._emit(EOF, self._at)
        return self._tokens

    def _emit(self, kind: int, start: int, value: str | None = None) -> None:
        self._line += self._text.count("\n", self._counted, start)
        self._counted = max(self._counted, start)
        if value is None:
            value = self._text[start : self._at]
        self._tokens.append(Token(kind, start, value, self._line))

    def _fail(self, start: int, message: str) -> bool:
        self._emit(ERROR, start, message)
        return False

    def _plain_text(self) -> bool:
        """Takes text up to the next `{{` and the delimiter itself; True when there is one."""
        text, start = self._text, self._at
        opening = text.find("{{", start)
        trims = opening >= 0 and text[opening + 2 : opening + 3] == "-"
        trims = trims and text[opening + 3 : opening + 4] in tuple(_SPACES)
        piece = text[start:opening] if opening >= 0 else text[start:]
        if trims:
            piece = piece.rstrip(_SPACES)
        if piece:
            self._emit(TEXT, start, piece)
        if opening < 0:
            self._at = len(text)
            self._emit(EOF, self._at)
            return False
        self._at = opening + 2
        body = self._at + 2 if trims else self._at
        if not text.startswith("/*", body):
            self._emit(LEFT, opening)
        self._at = body
        return True

    def _action(self) -> bool:
        """Takes everything up to and with `}}`. False after an error."""
        if self._text.startswith("/*", self._at):
            return self._comment()
        depth = 0
        while True:
            closing = self._closing()
            if closing:
                if depth:
                    return self._fail(self._at, "unclosed left paren")
                self._close(closing)
                return True
            if not self._step():
                return False
            kind = self._tokens[-1].kind
            depth += (kind == OPEN) - (kind == CLOSE)
            if depth < 0:
                return self._fail(self._tokens.pop().position, "unexpected right paren")

    def _closing(self) -> int:
        """Length of the closing delimiter here, trim marker included; 0 when there is none."""
        text, at = self._text, self._at
        if text.startswith("}}", at):
            return 2
        if text[at : at + 1] in tuple(_SPACES) and text.startswith("-}}", at + 1):
            return 4
        return 0

    def _close(self, length: int) -> None:
        self._at += length
        start = self._at - 2
        self._emit(RIGHT, start)
        if length == 4:
            self._skip_spaces()

    def _skip_spaces(self) -> None:
        text = self._text
        while self._at < len(text) and text[self._at] in _SPACES:
            self._at += 1

    def _comment(self) -> bool:
        start = self._at
        end = self._text.find("*/", start + 2)
        if end < 0:
            return self._fail(start, "unclosed comment")
        self._at = end + 2
        closing = self._closing()
        if not closing:
            return self._fail(start, "comment ends before closing delimiter")
        self._at += closing
        if closing == 4:
            self._skip_spaces()
        return True

    def _step(self) -> bool:
        """Takes one token inside an action. False after an error."""
        text, start = self._text, self._at
        char = text[start : start + 1]
        if not char:
            return self._fail(start, "unclosed action")
        if char in _SPACES:
            return self._spaces(start)
        if char in _SINGLE:
            self._at += 1
            self._emit(_SINGLE[char], start)
            return True
        if char == ":":
            if text[start + 1 : start + 2] != "=":
                return self._fail(start, "expected :=")
            self._at += 2
            self._emit(DECLARE, start)
            return True
        if char in _QUOTES:
            return self._quoted(start, char)
        if char == "`":
            return self._raw(start)
        return self._word(start, char)

    def _spaces(self, start: int) -> bool:
        while self._at < len(self._text) and self._text[self._at] in _SPACES:
            if self._closing():
                break
            self._at += 1
        self._emit(SPACE, start)
        return True

    def _quoted(self, start: int, mark: str) -> bool:
        kind, unterminated = _QUOTES[mark]
        at = start + 1
        while True:
            char = self._text[at : at + 1]
            if char == "\\":
                at += 1
                char = self._text[at : at + 1]
                if char in ("", "\n"):
                    return self._fail(start, unterminated)
            elif char in ("", "\n"):
                return self._fail(start, unterminated)
            elif char == mark:
                break
            at += 1
        self._at = at + 1
        self._emit(kind, start)
        return True

    def _raw(self, start: int) -> bool:
        end = self._text.find("`", start + 1)
        if end < 0:
            return self._fail(start, "unterminated raw quoted string")
        self._at = end + 1
        self._emit(RAW, start)
        return True

    def _word(self, start: int, char: str) -> bool:
        follower = self._text[start + 1 : start + 2]
        if char == "$" or (char == "." and follower and not _is_digit(follower)):
            return self._name(start, VARIABLE if char == "$" else FIELD)
        if char in "+-." or _is_digit(char):
            return self._number(start)
        if _is_alphanumeric(char):
            return self._name(start, IDENTIFIER)
        if not (char.isascii() and char.isprintable()):
            return self._fail(start, f"unrecognized character in action: {code_point(char)}")
        self._at += 1
        self._emit(CHAR, start)
        return True

    def _name(self, start: int, kind: int) -> bool:
        text = self._text
        end = start + (kind != IDENTIFIER)
        while end < len(text) and _is_alphanumeric(text[end]):
            end += 1
        self._at = end
        follower = text[end : end + 1]
        ends = not follower or follower in " \t\r\n.,|:)(" or text.startswith("}}", end)
        if not ends:
            return self._fail(start, f"bad character {code_point(follower)}")
        word = text[start:end]
        if word == "." or word in KEYWORDS:
            kind = KEYWORD
        elif word in ("true", "false"):
            kind = BOOL
        self._emit(kind, start)
        return True

    def _number(self, start: int) -> bool:
        if self._scan_number():
            if self._text[self._at : self._at + 1] not in ("+", "-"):
                self._emit(NUMBER, start)
                return True
            self._scan_number()  # a complex number, if anything: shown whole
        return self._fail(start, f"bad number syntax: {quote(self._text[start : self._at])}")

    def _scan_number(self) -> bool:
        """Moves over something like a number; the parser reads it exactly."""
        self._accept("+-")
        digits = _DIGITS
        if self._accept("0"):
            if self._accept("xX"):
                digits = _DIGITS + "abcdefABCDEF"
            elif self._accept("oO"):
                digits = "01234567_"
            elif self._accept("bB"):
                digits = "01_"
        self._accept_run(digits)
        if self._accept("."):
            self._accept_run(digits)
        exponent = "eE" if digits is _DIGITS else "pP" if len(digits) > len(_DIGITS) else ""
        if self._accept(exponent):
            self._accept("+-")
            self._accept_run(_DIGITS)
        self._accept("i")  # an imaginary number, which the parser refuses
        if _is_alphanumeric(self._text[self._at : self._at + 1]):
            self._at += 1
            return False
        return True

    def _accept(self, allowed: str) -> bool:
        char = self._text[self._at : self._at + 1]
        if char and char in allowed:
            self._at += 1
            return True
        return False

    def _accept_run(self, allowed: str) -> None:
        while self._accept(allowed):
            pass


def _is_digit(char: str) -> bool:
    return "0" <= char <= "9" if char else False


def _is_alphanumeric(char: str) -> bool:
    return char == "_" or char.isalpha() or char.isdecimal()
