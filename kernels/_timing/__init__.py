"""The parts of ``kernels.timing``: values, the two clocks and the host's state."""
