"""How the installed `teu` starts.

The script on PATH is three lines (`script` writes them). Its shebang carries `-I` (no user
site, no PYTHON* variables) and `-S` (no site module): together they save 3 ms and keep a user's
environment from changing what the program does. Install the package with its bytecode compiled:
a user who may not write there would otherwise compile it on every start.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


INTERRUPTED_STATUS = 130


def script(python: str, packages: str) -> str:
    """The text of an executable `teu` (or `docker`: the name it is called by decides).

    python: absolute path of the interpreter, without spaces. packages: the directory that holds
    the package `teu`.
    """
    return (
        f"#!{python} -IS\n"
        f"import sys; sys.path.insert(0, {packages!r})\n"
        "from teu.cli.launcher import start; start()\n"
    )


def start() -> NoReturn:
    """Runs the command line of this process and ends it, without the interpreter's clean-up."""
    status = INTERRUPTED_STATUS
    try:
        from teu.cli.main import main

        _fill_standard_descriptors()
        _write_bytes_as_they_are()
        status = main(sys.argv)
        sys.stdout.flush()
        sys.stderr.flush()
    except (KeyboardInterrupt, OSError):
        pass  # ^C while starting, or nobody reads our output any more
    os._exit(status)


def add_libraries() -> None:
    """Makes the libraries that are installed with the interpreter importable, which `-S` has left
    out: for the few commands that need one (a YAML parser)."""
    if "site" not in sys.modules:
        import site

        site.main()


def _fill_standard_descriptors() -> None:
    """A stdin, stdout or stderr that is closed becomes /dev/null; else a socket would take its
    number, and the container would be fed with its own output.
    """
    descriptor = os.open(os.devnull, os.O_RDWR)
    while descriptor <= 2:
        descriptor = os.open(os.devnull, os.O_RDWR)
    os.close(descriptor)
    for name, number, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False, encoding="utf-8"))  # noqa: SIM115


def _write_bytes_as_they_are() -> None:
    """The daemon's texts are UTF-8 whatever the locale; bytes that are not go through unharmed."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="surrogateescape")  # type: ignore[union-attr]
