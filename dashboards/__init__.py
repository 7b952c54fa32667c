"""What a person sees of a study: pages served beside it, and the same in one file.

Nothing here imports plotly before a page is made.
"""
