"""teu: a container engine with Docker's API and commands."""

__version__ = "0.1.0"
