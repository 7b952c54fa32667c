"""How work runs: operators with their references, fast paths, modules and measurements."""
