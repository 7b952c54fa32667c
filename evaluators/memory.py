"""Memory that a forward pass needs at its peak."""

from __future__ import annotations

import gc
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from evaluators.keys import measure_key
from evaluators.latency.conditions import metric_name
from evaluators.latency.provenance import key_versions, provenance
from evaluators.latency.subject import faults, layout_of, prepare
from evaluators.protocol import Measured, Slot
from kernels.device import Device
from kernels.exclusive import exclusive
from search_spaces.architecture import Architecture


class PeakMemoryEvaluator:
    """Megabytes (10^6 bytes) at the peak of one inference pass, weights and input included.

    It is what torch's allocator hands out: on a GPU by its own peak, on a CPU by the profiler's
    account of every allocation. What libraries keep for later passes or take elsewhere is not in
    it.

    Args:
        device: where to measure.
        batch: images a forward pass.
        dtype: element type.
    """

    slot: Slot = "measurement"

    def __init__(self, device: Device, *, batch: int = 1, dtype: str = "float32") -> None:
        self.device, self.batch, self.dtype = device, batch, dtype
        self.metrics: tuple[str, ...] = (metric_name("peak_memory_mb", batch=batch, dtype=dtype),)

    def cache_key(self, architecture: Architecture) -> str:
        """See :class:`evaluators.protocol.Evaluator`."""
        return measure_key(
            architecture,
            self.device,
            batch=self.batch,
            dtype=self.dtype,
            layout=layout_of(self.device, self.dtype),
            mode="memory",
            versions=key_versions(architecture),
        )

    def evaluate(self, architecture: Architecture) -> list[Measured]:
        """Run the network and read the peak.

        Raises:
            EvaluationError: it cannot be measured.
        """
        with exclusive(self.device), faults(self.device), torch.inference_mode():
            if self.device.kind == "cuda":
                peak = self._on_gpu(architecture)
            else:
                peak = self._on_cpu(architecture)
        detail: dict[str, Any] = {
            "batch": self.batch,
            "dtype": self.dtype,
            **provenance(self.device),
        }
        return [Measured(self.metrics[0], peak / 1e6, None, None, detail)]

    def _on_gpu(self, architecture: Architecture) -> int:
        index = self.device.index
        # Libraries take from torch's allocator in their first pass and keep it, as cuBLAS does.
        prepare(architecture, self.device, batch=self.batch, dtype=self.dtype)
        gc.collect()  # what earlier candidates left must not be freed meanwhile
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated(index)
        subject = prepare(architecture, self.device, batch=self.batch, dtype=self.dtype)
        torch.cuda.reset_peak_memory_stats(index)
        subject.run()
        torch.cuda.synchronize(index)
        return int(torch.cuda.max_memory_allocated(index) - before)

    def _on_cpu(self, architecture: Architecture) -> int:
        subject = prepare(architecture, self.device, batch=self.batch, dtype=self.dtype)
        held = [subject.inputs, *subject.module.parameters(), *subject.module.buffers()]
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as account:
            outputs = subject.run()
        del outputs
        changes = [
            (event.start_ns(), event.nbytes())
            for event in account.profiler.kineto_results.events()
            if event.name() == "[memory]"
        ]
        in_use = peak = 0
        for _, change in sorted(changes):
            in_use += change
            peak = max(peak, in_use)
        return peak + sum(item.numel() * item.element_size() for item in held)
