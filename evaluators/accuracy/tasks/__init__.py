"""What a network is trained for: to tell classes of images, or to foretell the tokens of a text.

A task is all that training, checkpoints and the evaluator need to know of the data.
"""

from evaluators.accuracy.tasks.choice import example_inputs, make_task, metrics_of, score_split
from evaluators.accuracy.tasks.protocol import Task

__all__ = ["Task", "example_inputs", "make_task", "metrics_of", "score_split"]
