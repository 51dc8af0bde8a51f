"""What a `logs` request asks; answered by a process of its own (shim/reader.py)."""

from msgspec import Struct


class LogRequest(Struct, kw_only=True):
    """`path` is the log's newest file; rotated ones (`.1`, `.2.gz`, …) are found beside it.

    tail: entries from the end, -1 for all. since_ns, until_ns: epoch, 0 for no limit.
    follow: until `exit.json` appears in `exit_directory` (the container's directory in the
    exec-root), or the client goes. multiplexed: Docker's 8-byte frames, else raw. by_line: a frame
    for each line, else for as many as there are.
    http_chunked: wrap what is written in HTTP/1.1 chunks; else the end is the end of the
    connection.
    """

    path: str
    stdout: bool = True
    stderr: bool = True
    since_ns: int = 0
    until_ns: int = 0
    tail: int = -1
    follow: bool = False
    timestamps: bool = False
    details: bool = False
    multiplexed: bool = True
    by_line: bool = False
    http_chunked: bool = False
    exit_directory: str = ""
