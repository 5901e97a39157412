"""What a server tells Prometheus of itself."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

from .tallies import Counts, Histograms

BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
STAGES = ("queue", "preprocess", "inference", "search")


class Metrics:
    """One server's, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = own = CollectorRegistry()
        self.requests = Counts(
            "edgerecall_requests",
            "Inference requests answered: HTTP's status code, or the name of gRPC's.",
            own,
            "code",
            "protocol",
        )
        self.images = Counts("edgerecall_images", "Images embedded.", own)
        self.seconds = Histograms(
            "edgerecall_request_seconds", "From a request's last byte, where it came, to its answer.", BUCKETS, own
        ).of[""]
        self.stages = Histograms(
            "edgerecall_stage_seconds",
            "queue: of an image until a thread takes it. preprocess, inference: of a batch, the latter with the wait"
            " for a replica. search: of a request's images in the gallery.",
            (0.0001, 0.0002, 0.0005, *BUCKETS),
            own,
            "stage",
            STAGES,
        ).of
        self.batch = Histograms(
            "edgerecall_batch_images", "Images of an inference.", [2**power for power in range(11)], own
        ).of[""]
        self.body_bytes = Histograms(
            "edgerecall_body_bytes", "Bytes of a request.", [4**power for power in range(4, 14)], own
        ).of[""]
        self.waiting = Gauge("edgerecall_images_waiting", "Images that wait or are at work.", registry=own)
        self.golden = Gauge(
            "edgerecall_golden_holds",
            "1 while the sealed golden embeddings come out on this machine, else 0.",
            registry=own,
        )
        self.replicas = Gauge("edgerecall_replicas", "Replicas of the model that answer.", registry=own)
        self.reloads = Counter(
            "edgerecall_reloads", "Times that the model was loaded again, or was refused.", ["result"], registry=own
        )
        self.gallery = Gauge("edgerecall_gallery_readable", "1 while the gallery is served as it is.", registry=own)
        self.rows = Gauge("edgerecall_gallery_rows", "Rows of the gallery.", registry=own)

    def observe(self, stage: str, seconds: float, images: int) -> None:
        """A stage that has ended."""
        self.stages[stage].observe(seconds)
        if stage == "inference":
            self.batch.observe(images)
