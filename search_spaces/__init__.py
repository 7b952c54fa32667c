"""What a candidate is: the architecture, the spaces it is drawn from, and the ways it is built."""
