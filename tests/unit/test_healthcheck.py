"""What a health check's results mean, without any container."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teu.container.autostart import has_fixed_address, needs
from teu.container.exits import restart_delay_s
from teu.container.healthcheck import ON_FAILURE, HealthCheck, judge, merged, resolve
from teu.model.config import (
    ContainerConfig,
    EndpointIPAMConfig,
    EndpointSettings,
    HealthConfig,
    HostConfig,
)
from teu.model.container import ContainerRecord, Health, HealthResult

SECOND = 10**9


def record(host: HostConfig | None = None, **config: Any) -> ContainerRecord:
    return ContainerRecord(
        id="0" * 64, name="x", created_ns=0, image_id="", args=["true"],
        config=ContainerConfig(**config), host=host or HostConfig(),
    )  # fmt: skip


def result(code: int, start_s: float = 100) -> HealthResult:
    return HealthResult(start_ns=int(start_s * SECOND), end_ns=0, exit_code=code)


@pytest.mark.parametrize(
    ("asked", "command"),
    [
        (None, None),
        ([], None),
        (["NONE"], None),
        (["WHAT", "x"], None),
        (["CMD", "curl", "-f", "x"], ["curl", "-f", "x"]),
        (["CMD-SHELL", "a && b"], ["/bin/sh", "-c", "a && b"]),
    ],
)
def test_commands(asked: list[str] | None, command: list[str] | None) -> None:
    check = resolve(record(healthcheck=HealthConfig(test=asked)))
    assert (check.command if check else None) == command


def test_defaults_and_what_was_asked() -> None:
    check = resolve(record(healthcheck=HealthConfig(test=["CMD", "x"])))
    assert check == HealthCheck(command=["x"])
    asked = HealthConfig(
        test=["CMD-SHELL", "x"], interval=SECOND, timeout=90 * SECOND, retries=2,
        start_period=3 * SECOND, start_interval=SECOND // 2,
    )  # fmt: skip
    host = HostConfig(annotations={ON_FAILURE: "stop"})
    check = resolve(record(host, healthcheck=asked, shell=["/bin/bash", "-c"]))
    assert check == HealthCheck(
        command=["/bin/bash", "-c", "x"], interval_s=1, timeout_s=90, timeout_text="1m30s",
        retries=2, start_period_s=3, start_interval_s=0.5, on_failure="stop",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("nanos", "text"),
    [
        (1_000_000, "1ms"),
        (300_000_000, "300ms"),
        (1_500_000_000, "1.5s"),
        (10 * SECOND, "10s"),
        (60 * SECOND, "1m0s"),
        (3_600 * SECOND, "1h0m0s"),
        (5_410 * SECOND, "1h30m10s"),
    ],
)
def test_time_limits_are_shown_as_go_shows_them(nanos: int, text: str) -> None:
    check = resolve(record(healthcheck=HealthConfig(test=["CMD", "x"], timeout=nanos)))
    assert check is not None
    assert check.timeout_text == text


def test_the_image_fills_what_the_request_leaves_out() -> None:
    image = HealthConfig(test=["CMD", "image"], interval=1, timeout=2, retries=3)
    assert merged(None, image) == image
    assert merged(image, None) == image
    asked = HealthConfig(interval=9)
    assert merged(asked, image) == HealthConfig(
        test=["CMD", "image"], interval=9, timeout=2, retries=3
    )
    assert merged(HealthConfig(test=["NONE"]), image) == HealthConfig(
        test=["NONE"], interval=1, timeout=2, retries=3
    )


def test_retries() -> None:
    check = HealthCheck(command=["x"], retries=2)
    health = judge(Health(status="starting"), check, result(1), 0)
    assert (health.status, health.failing_streak) == ("starting", 1)
    health = judge(health, check, result(7), 0)
    assert (health.status, health.failing_streak) == ("unhealthy", 2)
    health = judge(health, check, result(0), 0)
    assert (health.status, health.failing_streak) == ("healthy", 0)
    health = judge(health, check, result(-1), 0)
    assert (health.status, health.failing_streak) == ("healthy", 1)


def test_the_start_period() -> None:
    """Failures in it do not count; a success ends it for good."""
    check = HealthCheck(command=["x"], retries=1, start_period_s=10)
    health = judge(Health(status="starting"), check, result(1, 9), 0)
    assert (health.status, health.failing_streak, len(health.log)) == ("starting", 0, 1)
    assert judge(health, check, result(1, 10), 0).status == "unhealthy"
    health = judge(health, check, result(0, 2), 0)
    assert judge(health, check, result(1, 3), 0).status == "unhealthy"


@given(st.lists(st.integers(-1, 3), max_size=12))
def test_the_log_is_the_last_five(codes: list[int]) -> None:
    health = Health(status="starting")
    for code in codes:
        health = judge(health, HealthCheck(command=["x"]), result(code), 0)
    assert [entry.exit_code for entry in health.log] == codes[-5:]


@pytest.mark.parametrize(
    ("status", "age_s", "pause_s"),
    [("starting", 0, 5), ("starting", 18, 2), ("starting", 20, 30), ("healthy", 1, 30)],
)
def test_pauses_between_probes(status: str, age_s: float, pause_s: float) -> None:
    check = HealthCheck(command=["x"], start_period_s=20)
    assert check.pause_s(status, age_s) == pause_s


@pytest.mark.parametrize(
    ("short_runs", "delay_s"),
    [(0, 0.1), (1, 0.1), (2, 0.2), (3, 0.4), (9, 25.6), (10, 51.2), (11, 60), (5000, 60)],
)
def test_restart_delays(short_runs: int, delay_s: float) -> None:
    assert restart_delay_s(short_runs) == pytest.approx(delay_s)


def test_who_is_started_first() -> None:
    host = HostConfig(network_mode="container:a", pid_mode="container:b", links=["/c:db", "d"])
    assert needs(record(host)) == ["a", "b", "c", "d"]
    plain = record()
    assert (needs(plain), has_fixed_address(plain)) == ([], False)
    asked = EndpointSettings(ipam_config=EndpointIPAMConfig(ipv4_address="10.0.0.2"))
    plain.networks = {"n": asked}
    assert has_fixed_address(plain)
