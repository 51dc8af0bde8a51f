"""The process beside every container: zygote, shim and log reader.

Standard library only, imports nothing else of teu, runs as `python -I -S zygote.py`. It holds what
must outlive the daemon: stdio, terminal, log and exit status. `wire.py` describes how the daemon
talks to it; any program that keeps that protocol can take its place.

    zygote.py    forks the shims and readers; rehearsal.py fills their caches before
    shim.py      one per container: starts it, waits for it, answers the daemon (daemons.py)
    start.py     one call of the OCI runtime (program.py: a sealed copy of it; oom.py)
    session.py   a process's stdio: copies between it, its log and the attached clients
    client.py    one attached client (outlet.py: its output; keys.py: its detach keys)
    logfile.py   the log on disk: rotation (encode.py: the line format)
    remotelog.py log servers, only where used: link.py (resolve.py, tls.py) carries what
                 formats.py (msgpack.py) makes of lines.py
    reader.py    one `logs` request (logsource.py: files; decode.py: lines to text)
    loop.py      epoll and timers; files.py: small files; wire.py: packets
"""
