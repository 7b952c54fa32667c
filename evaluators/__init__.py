"""What a candidate is worth: accuracy, latency, energy, cost and the proxies that guess them."""
