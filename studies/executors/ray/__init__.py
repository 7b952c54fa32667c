"""Evaluations on a Ray cluster: the same protocol, with workers on any of its nodes."""
