"""Kernel systems that execute variants, one file each; see ``search_spaces/variants.py``."""
