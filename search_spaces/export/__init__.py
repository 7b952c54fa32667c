"""From a trained architecture to files that work without the study that made it.

``export_network`` writes a folder, ``load`` reads one back, ``compare`` sets two networks
side by side. Each file of this package has one part of it:

* ``write``: the folder as a whole, and its manifest
* ``programs``: ``.pt2`` and ONNX
* ``card``: the model card
* ``reload_text``: the script that travels with the model; ``reload_uses``: what it is used for
"""
