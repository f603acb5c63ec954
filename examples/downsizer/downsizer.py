"""The four-method lifecycle: load, validate, capabilities, shutdown. It needs no base class at all."""

from typing import Any


class Downsizer:
    """Says which machine is larger than it has to be."""

    def load(self, config: dict[str, Any]) -> None:
        self.threshold = config["cpu_threshold"]

    def validate(self) -> bool:
        return 0 < self.threshold < 100

    def capabilities(self) -> dict[str, Any]:
        return {"actions": ["downsize"]}

    def shutdown(self) -> None:
        """Nothing to let go of."""

    def analyze(self, resource_id: str, metrics: dict[str, float]) -> list[dict[str, Any]]:
        """One proposal where the CPU is used less than the threshold, none otherwise."""
        cpu = metrics.get("cpu_usage")
        if cpu is None or cpu >= self.threshold:
            return []
        return [{"resource_id": resource_id, "action": "downsize", "reason": f"CPU {cpu}% < {self.threshold}%"}]
