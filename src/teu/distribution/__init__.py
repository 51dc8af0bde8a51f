"""The registry server: OCI distribution specification 1.1 over a content store on disk.

    main.py        the process: listener, signals;  options.py  what it is told
    server.py      HTTP: routing, access, errors, headers, counters
    blobs.py uploads.py manifests.py listings.py    the endpoints of the specification
    repository.py  what a manifest refers to; names, tags, digests (grammar.py)
    access.py      who may do what: htpasswd, rules, tokens
    collect.py     garbage collection and retention, while everything is served
    pullthrough.py the cache of another registry
    notify.py      webhooks;  page.py  the page for people;  metrics.py  for Prometheus

Below the root: `blobs/` (content/blobs.py), `uploads/`, `registry.db` (store/distribution.py).
"""
