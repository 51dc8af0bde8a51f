"""`--change` instructions."""

import pytest

from teu.errors import InvalidParameter
from teu.image.changes import apply_changes
from teu.model.config import ContainerConfig


def test_every_instruction() -> None:
    config = apply_changes(
        ContainerConfig(env=["A=1", "B=2"], labels={"x": "y"}),
        [
            'CMD ["sh", "-c", "echo hi"]',
            "entrypoint /bin/tool --flag",
            "ENV A=3 C='a b'",
            "ENV D some words",
            "EXPOSE 80 5000-5001/udp",
            "LABEL k=v n=",
            "USER 1000:1000",
            "WORKDIR /srv",
            "WORKDIR app",
            'VOLUME ["/data", "/x y"]',
            "VOLUME /a /b",
            "ONBUILD RUN true",
            "STOPSIGNAL SIGINT",
            "HEALTHCHECK --interval=3s --retries=2 CMD curl -f http://localhost/",
        ],
    )
    assert config.cmd == ["sh", "-c", "echo hi"]
    assert config.entrypoint == ["/bin/sh", "-c", "/bin/tool --flag"]
    assert config.env == ["A=3", "B=2", "C=a b", "D=some words"]
    assert sorted(config.exposed_ports or {}) == ["5000/udp", "5001/udp", "80/tcp"]
    assert config.labels == {"x": "y", "k": "v", "n": ""}
    assert (config.user, config.working_dir) == ("1000:1000", "/srv/app")
    assert sorted(config.volumes or {}) == ["/a", "/b", "/data", "/x y"]
    assert config.on_build == ["RUN true"]
    assert config.stop_signal == "SIGINT"
    assert config.healthcheck is not None
    assert config.healthcheck.test == ["CMD-SHELL", "curl -f http://localhost/"]
    assert (config.healthcheck.interval, config.healthcheck.retries) == (3_000_000_000, 2)


def test_the_given_config_stays() -> None:
    before = ContainerConfig(env=["A=1"])
    apply_changes(before, ["ENV A=2"])
    assert before.env == ["A=1"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("RUN true", "RUN is not a valid change command"),
        ("ENV", "at least one argument"),
        ("ENV A", "must have two arguments"),
        ("ENV A=1 B", 'can.t find = in "B"'),
        ("EXPOSE 99999", "invalid containerPort: 99999"),
        ("EXPOSE x", "invalid containerPort: x"),
        ("ONBUILD FROM x", "isn't allowed as an ONBUILD trigger"),
        ("USER", "exactly one argument"),
        ("HEALTHCHECK NOPE x", "unknown type"),
        ("HEALTHCHECK --bad=1 CMD x", "unknown flag: --bad"),
        ("LABEL 'x=1", "matching single-quote"),
    ],
)
def test_bad_changes(change: str, message: str) -> None:
    with pytest.raises(InvalidParameter, match=message):
        apply_changes(ContainerConfig(), [change])
