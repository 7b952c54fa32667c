"""Latency of a network on a device, as an eager module (CPU) or a CUDA graph (GPU)."""

from __future__ import annotations

import torch

from evaluators.keys import measure_key
from evaluators.protocol import EvaluationError, Measured, Slot
from kernels.device import Device
from kernels.timing import TimingPolicy, time_callable
from search_spaces.architecture import Architecture
from search_spaces.build import build

_INPUT_SEED = 0


def default_policy(device: Device) -> TimingPolicy:
    """Return how networks are timed: 30 samples in 3 rounds, about half a second, warm caches.

    On a CPU one thread, so that candidates compare on a machine with other work; on a GPU a CUDA
    graph, so that the time is the device's and not Python's.
    """
    cpu = device.kind == "cpu"
    return TimingPolicy(
        rounds=3,
        samples_per_round=10,
        cache="warm",
        mode="eager" if cpu else "graph",
        threads=1 if cpu else None,
        min_sample_us=2000.0,
        warmup_max_seconds=0.4,
        max_seconds=0.6,
    )


class LatencyEvaluator:
    """Times a float32 forward pass of a candidate with random weights and N(0, 1) inputs.

    The metric is ``latency_ms`` for a batch of 1 and ``latency_ms[batch=N]`` otherwise: the median
    of the samples, low and high their 10th and 90th percentiles, in milliseconds a batch.

    Args:
        device: where to measure.
        batch: images a forward pass.
        policy: how to time; :func:`default_policy` by default.
    """

    slot: Slot = "measurement"

    def __init__(
        self, device: Device, *, batch: int = 1, policy: TimingPolicy | None = None
    ) -> None:
        self.device, self.batch = device, batch
        self.policy = policy or default_policy(device)
        self.metrics: tuple[str, ...] = (
            "latency_ms" if batch == 1 else f"latency_ms[batch={batch}]",
        )

    def cache_key(self, architecture: Architecture) -> str:
        """See :class:`evaluators.protocol.Evaluator`."""
        return measure_key(
            architecture,
            self.device,
            batch=self.batch,
            cache=self.policy.cache,
            mode=self.policy.mode,
            threads=self.policy.threads,
            versions={"torch": torch.__version__},
        )

    def evaluate(self, architecture: Architecture) -> list[Measured]:
        """Build the network and time it.

        Raises:
            EvaluationError: it has several inputs, or a variant that cannot be executed yet.
        """
        if len(architecture.inputs) != 1:
            raise EvaluationError(
                f"A latency needs a network of one input, got {len(architecture.inputs)}."
            )
        if architecture.regions:
            raise EvaluationError(
                f"Variants cannot be timed yet; this network has {architecture.regions[0]}."
            )
        target = self.device.torch_name
        module = build(architecture).eval().to(target)
        generator = torch.Generator().manual_seed(_INPUT_SEED)
        shape = (self.batch, *architecture.inputs[0].shape)
        images = torch.randn(shape, generator=generator).to(target)
        with torch.inference_mode():
            timing = time_callable(lambda: module(images), device=self.device, policy=self.policy)
        detail = {
            **timing.to_dict(),
            "mad_us": timing.mad_us,
            "drift": timing.drift,
            "batch": self.batch,
            "dtype": "float32",
            "driver": self.device.driver,
            "torch": torch.__version__,
        }
        figures = (timing.median_us / 1e3, timing.p10_us / 1e3, timing.p90_us / 1e3)
        return [Measured(self.metrics[0], *figures, detail)]
