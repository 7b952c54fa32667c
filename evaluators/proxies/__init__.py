"""Training-free scores that rank candidates before any money is spent."""
