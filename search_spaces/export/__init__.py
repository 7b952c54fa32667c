"""From a trained architecture to files that work without the study that made it."""
