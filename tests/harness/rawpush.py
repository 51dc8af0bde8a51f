"""Puts manifests and blobs into a registry by hand, byte for byte."""

import http.client
import json
from collections.abc import Sequence

from harness.imagelab import digest


def put_raw(
    address: str, repository: str, tag: str, manifest: bytes, blobs: Sequence[bytes]
) -> None:
    """Over plain HTTP. The manifest says its own media type."""
    connection = http.client.HTTPConnection(address, timeout=10)
    try:
        for blob in blobs:
            connection.request("POST", f"/v2/{repository}/blobs/uploads/")
            begun = connection.getresponse()
            begun.read()
            location = begun.headers["Location"]
            separator = "&" if "?" in location else "?"
            connection.request("PUT", f"{location}{separator}digest={digest(blob)}", blob)
            _good(connection.getresponse())
        headers = {"Content-Type": json.loads(manifest)["mediaType"]}
        connection.request("PUT", f"/v2/{repository}/manifests/{tag}", manifest, headers)
        _good(connection.getresponse())
    finally:
        connection.close()


def _good(response: http.client.HTTPResponse) -> None:
    body = response.read()
    assert response.status == 201, body
