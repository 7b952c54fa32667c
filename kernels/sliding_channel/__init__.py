"""Sliding-channel convolution: a 1x1 convolution over a moving window of the input channels."""
