#!/usr/bin/env python3
"""Unpacks random and damaged archives until it finds one that breaks a promise, or time is up.

    PYTHONPATH=src:tests python tests/fuzz/archives.py [--seconds 60] [--seed 1] [--keep DIRECTORY]

Needs root. What breaks a promise is written to DIRECTORY, and named with its seed.
"""

import argparse
import gzip
import random
import sys
import tempfile
import time
import traceback
from pathlib import Path

import zstandard

from harness import hostile
from harness.imagelab import Lab, digest, member, tar_of
from system.image.test_hostile import unpack_and_look
from teu.errors import EngineError


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 30))
    parser.add_argument("--keep", type=Path, default=Path("."))
    args = parser.parse_args()
    deadline = time.monotonic() + args.seconds
    count = errors = 0
    seed = args.seed
    while time.monotonic() < deadline:
        data = archive(random.Random(seed))
        try:
            errors += bool(attempt(random.Random(seed), data))
        except Exception:
            traceback.print_exc()
            found = args.keep / f"archive-{seed}.tar"
            found.write_bytes(data)
            print(f"seed {seed}: {found}", file=sys.stderr)
            return 1
        count += 1
        seed += 1
    print(f"{count} archives from seed {args.seed}: {errors} refused, no promise broken")
    return 0


def archive(rng: random.Random) -> bytes:
    data = hostile.random_archive(rng)
    return hostile.damaged(rng, data) if rng.random() < 0.5 else data


def attempt(rng: random.Random, data: bytes) -> str:
    """The error it ended with, "" for none."""
    how = rng.randrange(4)
    with (
        tempfile.TemporaryDirectory(prefix="fuzz") as root,
        hostile.nothing_outside(Path(root)) as inner,
    ):
        if how < 3:
            return unpack_and_look(data, inner)
        return load(rng, data, inner)


def load(rng: random.Random, layer: bytes, root: Path) -> str:
    """As the layer of an image archive, which is damaged as well."""
    packed = rng.choice((bytes, gzip.compress, zstandard.compress))(layer)
    config = b'{"rootfs":{"type":"layers","diff_ids":["%s"]}}' % digest(layer).encode()
    manifest = b'[{"Config":"c.json","RepoTags":["x:1"],"Layers":["l/layer.tar"]}]'
    whole = tar_of(
        member("l/layer.tar", packed), member("c.json", config), member("manifest.json", manifest)
    )
    if rng.random() < 0.5:
        whole = hostile.damaged(rng, whole)
    lab = Lab(root)
    try:
        lab.load(whole, 1 << 16)
    except EngineError as error:
        assert lab.files() == set(), lab.files()
        return str(error)
    return ""


if __name__ == "__main__":
    sys.exit(main())
