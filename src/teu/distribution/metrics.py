"""Counters in the text format of Prometheus."""

from collections import Counter


class Metrics:
    def __init__(self) -> None:
        self._requests: Counter[tuple[str, str, int]] = Counter()
        self._seconds: Counter[str] = Counter()
        self.received_bytes = 0
        self.sent_bytes = 0
        self.in_flight = 0

    def count(self, method: str, resource: str, status: int, seconds: float) -> None:
        self._requests[method, resource, status] += 1
        self._seconds[resource] += seconds  # type: ignore[assignment]

    def text(self, gauges: dict[str, int]) -> str:
        """`gauges`: more values of now, by name without the prefix."""
        lines = ["# TYPE teu_registry_requests_total counter"]
        for (method, resource, status), count in sorted(self._requests.items()):
            labels = f'method="{method}",resource="{resource}",code="{status}"'
            lines.append(f"teu_registry_requests_total{{{labels}}} {count}")
        lines.append("# TYPE teu_registry_request_seconds_total counter")
        for resource, seconds in sorted(self._seconds.items()):
            lines.append(
                f'teu_registry_request_seconds_total{{resource="{resource}"}} {seconds:.6f}'
            )
        for name, value in (
            ("received_bytes_total", self.received_bytes),
            ("sent_bytes_total", self.sent_bytes),
        ):
            lines += [f"# TYPE teu_registry_{name} counter", f"teu_registry_{name} {value}"]
        for name, value in {"requests_in_flight": self.in_flight, **gauges}.items():
            lines += [f"# TYPE teu_registry_{name} gauge", f"teu_registry_{name} {value}"]
        return "\n".join(lines) + "\n"
