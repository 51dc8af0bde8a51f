"""`python -m teu.cli`: the command line, for development."""

import sys

from teu.cli.main import main

sys.exit(main(["teu", *sys.argv[1:]]))
