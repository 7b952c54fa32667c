"""Dual-module inference: a cheap estimate decides which rows of a layer are worth computing."""
