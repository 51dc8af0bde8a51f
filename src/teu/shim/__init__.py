"""The process beside every container: zygote, shim and log reader.

Standard library only, imports nothing else of teu, runs as `python -I -S zygote.py`. It holds what
must outlive the daemon: stdio, terminal, log and exit status. `wire.py` describes how the daemon
talks to it; any program that keeps that protocol can take its place.

    zygote.py    forks the two below, a few hundred microseconds each
    shim.py      one per container: starts it, waits for it, answers the daemon
    start.py     one call of the OCI runtime
    session.py   a process's stdio: copies between it, its log and the attached clients
    client.py    one attached client
    logfile.py   log drivers: line format, rotation
    reader.py    one `logs` request
"""
