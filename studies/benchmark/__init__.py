"""How good samplers are: the same tasks, from tables, for all of them.

``task`` says what is searched and what the truth is, ``race`` runs one sampler once, ``suite`` runs
all of them in parallel processes, ``score`` says how they did.
"""
