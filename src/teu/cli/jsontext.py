"""JSON for the command line without the 7 ms that `import json` costs (it needs `re`).

CPython keeps the scanner and the encoder of its json package in the C module `_json`. They are
used directly; where they are missing or differ, the package itself is the fallback.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_SPACE = " \t\r\n"


def loads(data: str | bytes) -> Any:
    """The value that the whole of `data` holds. Raises: ValueError."""
    text = data if isinstance(data, str) else data.decode("utf-8", "surrogatepass")
    text = text.strip(_SPACE)
    try:
        value, end = _scan(text, 0)
    except (StopIteration, SystemError):
        # SystemError: the C code looks for its error class in json.decoder, which is not loaded.
        import json

        json.loads(text)
        raise ValueError(f"not JSON: {text[:80]!r}") from None
    if end != len(text):
        raise ValueError(f"not JSON at character {end}: {text[:80]!r}")
    return value


def dumps(value: Any) -> str:
    """Compact JSON. Raises: TypeError for what JSON cannot hold."""
    return _encode(value)


def _refuse(value: object) -> Any:
    raise TypeError(f"JSON cannot hold {type(value).__name__}")


class _ScannerSettings:
    """What the C scanner reads off its context."""

    strict = False
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = float


def _build() -> tuple[Callable[[str, int], tuple[Any, int]], Callable[[Any], str]]:
    try:
        import _json

        scanner = _json.make_scanner(_ScannerSettings)  # type: ignore[arg-type]
        chunks = _json.make_encoder(
            None, _refuse, _json.encode_basestring, None, ":", ",", False, False, True
        )
        if "".join(chunks({"a": [1, 2.5, None, True]}, 0)) != '{"a":[1,2.5,null,true]}':
            raise TypeError
    except (ImportError, AttributeError, TypeError):
        import json

        return json.JSONDecoder(strict=False).raw_decode, _slow_dumps
    return scanner, lambda value: "".join(chunks(value, 0))


def _slow_dumps(value: Any) -> str:
    import json

    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


_scan, _encode = _build()
