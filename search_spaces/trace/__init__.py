"""Reads an ordinary ``nn.Module`` into an architecture, weights included.

torch.fx records the forward pass; each recorded step is translated by one entry of the tables, or
refused.
"""

from __future__ import annotations

from search_spaces.trace.tracing import trace

__all__ = ["trace"]
