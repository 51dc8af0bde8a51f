"""`teu compose`: carries out over the API what teu.compose has worked out.

project.py   the project that the flags and files name;  engine.py  what of it is there
steps.py     what is shown of the progress
up.py down.py changes.py    create, start, replace, remove;  builds.py  images
output.py    logs of many containers;  tables.py  ps, ls, images, top, port
"""
