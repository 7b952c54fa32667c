"""Arbitrary precision: weights of p bits times activations of q bits, by products of bit planes."""
