"""Search: metrics, samplers, executors, records and fronts."""
