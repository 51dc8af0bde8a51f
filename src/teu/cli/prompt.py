"""Questions that end in yes or no."""

from __future__ import annotations

import sys

from teu.cli.session import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from teu.cli.session import Session


def confirm(session: Session, question: str) -> bool:
    """Asks on stdout, reads a line from stdin; only `y` is yes, also the end of input is no.

    Raises: Failure when the user interrupts.
    """
    session.out(f"{question} [y/N] ")
    sys.stdout.flush()
    try:
        answer = sys.stdin.readline()
    except KeyboardInterrupt:
        session.out("\n")
        raise Failure("prompt terminated") from None
    return answer.strip().lower() == "y"
