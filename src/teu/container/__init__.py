"""Containers: their life cycle, execs, streams and recovery.

containers.py  the directory of live `Container` objects; names, ids, persistence
create.py      request -> record        mounts.py   `-v` and `--mount` -> mount points
lifecycle.py   start stop kill pause    exits.py    what an exit means; restart policy
removal.py     remove and teardown      rootfs.py   the rw layer and its overlay mount
exec.py        execs                    streams.py  attach, wait, logs
recovery.py    what a new daemon makes of what the last one left
"""
