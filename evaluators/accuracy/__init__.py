"""Accuracy of a candidate: data sets, training recipes, training and evaluation.

``data`` and ``recipe`` load without torch; ``training`` needs it.
"""
