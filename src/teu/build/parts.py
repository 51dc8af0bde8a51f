"""What the builder's modules work with, handed over once by the service."""

import asyncio
from dataclasses import dataclass

from teu.build.cache import BuildCache
from teu.build.running import Runner
from teu.build.workspace import Workspace
from teu.image.service import ImageService


@dataclass(frozen=True, slots=True)
class Parts:
    """`commands` limits how many RUN steps of all builds run at the same time."""

    workspace: Workspace
    cache: BuildCache
    images: ImageService
    runner: Runner
    commands: asyncio.Semaphore
