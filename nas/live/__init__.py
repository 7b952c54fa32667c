"""What a running search shows: a view of the terminal that is drawn anew, or a line a trial."""
