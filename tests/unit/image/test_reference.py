"""References: Docker's grammar, names and error texts."""

import pytest

from teu.model.reference import InvalidReference, Reference

HEX = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "full", "familiar"),
    [
        ("busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
        ("library/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("user/app", "docker.io/user/app:latest", "user/app:latest"),
        ("docker.io/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("index.docker.io/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
        ("localhost:5000/a/b:x", "localhost:5000/a/b:x", "localhost:5000/a/b:x"),
        ("127.0.0.1:5000/app", "127.0.0.1:5000/app:latest", "127.0.0.1:5000/app:latest"),
        ("[::1]:5000/app", "[::1]:5000/app:latest", "[::1]:5000/app:latest"),
        (
            "Registry.example.com/a",
            "Registry.example.com/a:latest",
            "Registry.example.com/a:latest",
        ),
        ("a__b/c-d.e", "docker.io/a__b/c-d.e:latest", "a__b/c-d.e:latest"),
        (f"a@sha256:{HEX}", f"docker.io/library/a@sha256:{HEX}", f"a@sha256:{HEX}"),
        (f"a:t@sha256:{HEX}", f"docker.io/library/a:t@sha256:{HEX}", f"a:t@sha256:{HEX}"),
        ("a:_x", "docker.io/library/a:_x", "a:_x"),
    ],
)
def test_normalizes(text: str, full: str, familiar: str) -> None:
    reference = Reference.parse(text).with_default_tag()
    assert str(reference) == full
    assert reference.familiar == familiar
    assert Reference.parse(full) == reference


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "invalid reference format"),
        (":tag", "invalid reference format"),
        ("a:", "invalid reference format"),
        ("a//b", "invalid reference format"),
        ("a/", "invalid reference format"),
        ("-a", "invalid reference format"),
        ("a b", "invalid reference format"),
        ("a:b:c", "invalid reference format"),
        ("a\n", "invalid reference format"),
        ("a..b", "invalid reference format"),
        ("a___b", "invalid reference format"),
        ("a:" + "t" * 129, "invalid reference format"),
        ("a@sha256:beef", "invalid reference format"),
        ("a@sha256:" + "0" * 40, "invalid checksum digest length"),
        ("a@md5:" + "0" * 32, "unsupported digest algorithm"),
        ("Busybox", "repository name (library/Busybox) must be lowercase"),
        ("host:5000/App", "repository name (App) must be lowercase"),
        (HEX, "cannot specify 64-byte hexadecimal strings"),
        ("x/" + "a" * 300, "must not be more than 255 characters"),
    ],
)
def test_refuses(text: str, message: str) -> None:
    with pytest.raises(InvalidReference) as caught:
        Reference.parse(text)
    assert message in str(caught.value)


def test_tag_of_upper_case_is_fine() -> None:
    assert Reference.parse("a:RC1").tag == "RC1"
    with pytest.raises(InvalidReference, match="invalid tag format"):
        Reference.parse("a").with_tag("-bad")
