"""Latency of whole networks, by the one timer in ``kernels.timing``."""
