"""Shfl-BW: weights pruned in vectors of V rows, rows shuffled so that alike ones share a vector."""
