"""What an OCI runtime's words mean: exit status as `docker run` reports it, and Docker's text.

The only place that reads crun's and runc's messages. Clients match on the text (the docker client
turns `executable file not found` and `no such file or directory` into 127, `permission denied`
and `is a directory` into 126), so it is Docker's, whatever the runtime said.
Source: moby daemon/errors.go, docker/cli run.go; crun 1.8, runc 1.1.
"""

import re

from teu.errors import SystemFailure

NOT_FOUND = 127
CANNOT_RUN = 126
ENGINE = 125

# (runtime's message, exit status, what Docker says; \1 is the command as it was asked)
MESSAGES: list[tuple[str, int, str]] = [
    (r"executable file [`'\"](/.*)['`\"] not found", NOT_FOUND,
     r'exec: "\1": stat \1: no such file or directory'),
    (r"executable file [`'\"](.*)['`\"] not found", NOT_FOUND,
     r'exec: "\1": executable file not found in $PATH'),
    (r"open executable: Permission denied", CANNOT_RUN, "exec: permission denied"),
    (r"open executable: (?:Operation not permitted|Is a directory)", CANNOT_RUN,
     "exec: is a directory: permission denied"),
    (r"chdir [`'\"](.*)['`\"]: No such file or directory", NOT_FOUND,
     r'chdir to cwd ("\1") set in config.json failed: no such file or directory'),
    (r"chdir [`'\"](.*)['`\"]: (?:Permission denied|Not a directory)", CANNOT_RUN,
     r'chdir to cwd ("\1") set in config.json failed: permission denied'),
    (r'(exec: ".*": executable file not found in \$PATH)', NOT_FOUND, r"\1"),
    (r'(exec: ".*": stat .*: no such file or directory)', NOT_FOUND, r"\1"),
    (r'(exec: ".*": (?:permission denied|is a directory|exec format error))', CANNOT_RUN, r"\1"),
    (r"(chdir to cwd .*: no such file or directory)", NOT_FOUND, r"\1"),
    (r"(chdir to cwd .*: permission denied)", CANNOT_RUN, r"\1"),
    (r"(exec .*: exec format error)", CANNOT_RUN, r"\1"),
]  # fmt: skip
_UNNAMED = re.compile(r"exec: (permission denied|is a directory: permission denied)$")
_WRONG_KIND = (
    "Are you trying to mount a directory onto a file (or vice-versa)? Check if the specified host "
    "path exists and is the expected type"
)
_RUNC_LINE = re.compile(r'level=(?:error|fatal) msg="((?:[^"\\]|\\.)*)"')


class StartFailed(SystemFailure):
    """The runtime did not start a container or an exec.

    `exit_code`: 127 command not found, 126 command cannot be run, 125 anything else.
    """

    code = "start-failed"

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def start_failed(words: str, verb: str = "create", command: str = "") -> StartFailed:
    """From what the runtime printed. `verb`: create or exec. `command`: the program, for messages
    of runtimes that do not name it."""
    if found := _RUNC_LINE.findall(words):
        words = re.sub(r"\\(.)", r"\1", found[-1])
    exit_code, text = _explain(words.strip())
    if command:
        text = _UNNAMED.sub(lambda found: f'exec: "{command}": {found[1]}', text)
    where = "exec failed: " if verb == "exec" else ""
    return StartFailed(f"OCI runtime {verb} failed: {where}{text}", exit_code)


def log_failed(words: str) -> StartFailed:
    """The container's log cannot be opened, so it is not started."""
    return StartFailed(
        "failed to create task for container: failed to initialize logging driver: " + words,
        ENGINE,
    )


def _explain(words: str) -> tuple[int, str]:
    for pattern, exit_code, text in MESSAGES:
        if match := re.search(pattern, words):
            return exit_code, f"unable to start container process: {match.expand(text)}"
    if "mount" in words and words.endswith(("Not a directory", "not a directory")):
        words = f"{words}: {_WRONG_KIND}"
    return ENGINE, words or "the runtime failed without a message"
