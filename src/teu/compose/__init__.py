"""Compose projects: from files to a plan of changes; no HTTP here (cli/compose/ has that).

    source.py       YAML with lines, `<<`, `!reset`, `!override`
    environment.py  .env files; interpolate.py  `${NAME:-default}`
    shapes.py       what each key may hold, in its long form; service.py  the service's table
    merge.py        several files, `extends` (extends.py), `include` (include.py)
    project.py      the whole: load -> Project;  render.py  `config`
    convert.py      a service as the body of `POST /containers/create`, networks, volumes
    plan.py         what has to change, and why; order.py  in which order

Source: the Compose Specification (compose-spec.io); names and labels as docker compose v2.
"""
