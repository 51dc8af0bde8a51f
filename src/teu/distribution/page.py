"""The page for people: repositories, tags, platforms, sizes, layers. Plain HTML, no scripts."""

import html
import json
from typing import Any

from teu.distribution.registry import Registry
from teu.errors import EngineError
from teu.units import human_size

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.3rem .8rem .3rem 0;"
    "border-bottom:1px solid #ddd;vertical-align:top}code{font-size:13px}"
    "@media(prefers-color-scheme:dark){body{background:#111;color:#ddd}a{color:#8bf}"
    "td,th{border-color:#333}}"
)


def render(registry: Registry, repository: str, host: str) -> bytes:
    """All repositories, or one with its tags."""
    if repository and registry.store.has_repository(repository):
        body = _repository(registry, repository, host)
    else:
        body = _overview(registry)
    head = f"<meta charset=utf-8><title>{html.escape(host)}</title><style>{_STYLE}</style>"
    return f"<!doctype html><html lang=en>{head}<body>{body}</body></html>".encode()


def _overview(registry: Registry) -> str:
    rows = "".join(
        f'<tr><td><a href="/?repository={html.escape(name)}">{html.escape(name)}</a>'
        f"<td>{len(registry.store.tags(name))}<td>{_size(registry.store.size_bytes(name))}"
        for name in registry.store.repositories()
    )
    table = f"<table><tr><th>Repository<th>Tags<th>Size{rows}</table>"
    return "<h1>Registry</h1>" + (table if rows else "<p>Nothing was pushed yet.")


def _repository(registry: Registry, repository: str, host: str) -> str:
    rows = []
    for tag, digest, _ in registry.store.tag_rows(repository):
        name = html.escape(f"{host}/{repository}:{tag}")
        shown = "".join(
            f"<div>{html.escape(platform)} · {_size(size)} · {layers} layers</div>"
            for platform, size, layers in _images(registry, repository, digest)
        )
        rows.append(
            f"<tr><td><b>{html.escape(tag)}</b><td><code>{digest[:19]}</code><td>{shown}"
            f"<td><code>teu pull {name}</code>"
        )
    table = f"<table><tr><th>Tag<th>Digest<th>Contents<th>Get it{''.join(rows)}</table>"
    return f'<p><a href="/">All repositories</a><h1>{html.escape(repository)}</h1>{table}'


def _images(registry: Registry, repository: str, digest: str) -> list[tuple[str, int, int]]:
    """(platform, bytes, number of layers) of an image, or of each image of an index."""
    content = _content(registry, digest)
    if children := content.get("manifests"):
        found = []
        for child in children:
            platform = child.get("platform") or {}
            words = [platform.get(key) for key in ("os", "architecture", "variant")]
            name = "/".join(word for word in words if word) or child.get("mediaType", "")
            _, size, layers = _image(_content(registry, child["digest"]))
            found.append((name, size, layers))
        return found
    config = _content(registry, (content.get("config") or {}).get("digest", ""))
    words = [config.get("os"), config.get("architecture")]
    name = "/".join(word for word in words if word)
    return [(name or content.get("artifactType", "artifact"), *_image(content)[1:])]


def _image(content: dict[str, Any]) -> tuple[str, int, int]:
    layers = content.get("layers") or content.get("blobs") or []
    return "", sum(int(layer.get("size", 0)) for layer in layers), len(layers)


def _content(registry: Registry, digest: str) -> dict[str, Any]:
    """A JSON blob; empty when it is not here, or not JSON."""
    try:
        found = json.loads(registry.blobs.read(digest))
    except (EngineError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _size(size_bytes: int) -> str:
    return human_size(size_bytes)
