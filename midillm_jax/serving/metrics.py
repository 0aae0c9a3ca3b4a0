"""What a server counts, in a Prometheus registry of its own."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

_SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
"""Bounds of the histograms' buckets."""


class Metrics:
    """Names begin with ``midillm_``; memory, CPU time and open files of the process are among them on Linux."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.waiting = Gauge(
            "midillm_sequences_waiting", "Sequences of which nothing is written yet.", registry=self.registry
        )
        self.running = Gauge("midillm_sequences_running", "Sequences begun and not done.", registry=self.registry)
        self.tokens = Counter(
            "midillm_tokens", "Music tokens written, three a note or rest; rate() is tokens/s.", registry=self.registry
        )
        self.requests = Counter(
            "midillm_requests",
            "Requests taken in, by outcome: done, cancelled by the client, timeout, refused by the engine, failed.",
            ["outcome"],
            registry=self.registry,
        )
        self.rejects = Counter(
            "midillm_rejects",
            "Requests not taken in: busy (429), invalid (422), too_large (413), unfit (400), unavailable (503).",
            ["reason"],
            registry=self.registry,
        )
        self.first_note = Histogram(
            "midillm_first_note_seconds",
            "From a request's arrival to its first note.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.total = Histogram(
            "midillm_request_seconds",
            "From a request's arrival to the end of its last piece.",
            buckets=_SECONDS,
            registry=self.registry,
        )
