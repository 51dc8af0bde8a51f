"""Signals as users write them."""

import signal

from teu.errors import InvalidParameter


def parse_signal(text: str) -> int:
    """`9`, `KILL`, `SIGKILL`, `RTMIN+3`. Raises: InvalidParameter."""
    name = text.strip().upper().removeprefix("SIG")
    if name.isdigit() and 0 < int(name) < signal.NSIG:
        return int(name)
    if name.startswith(("RTMIN+", "RTMAX-")):
        base, offset = name[:5], name[5:]
        number = int(signal.Signals[f"SIG{base}"]) + (int(offset) if offset[1:].isdigit() else 99)
        if signal.SIGRTMIN <= number <= signal.SIGRTMAX:
            return number
    try:
        return int(signal.Signals[f"SIG{name}"])
    except KeyError:
        raise InvalidParameter(f"Invalid signal: {text}") from None
