"""Where the tests go."""

PAGES = (
    "studies",
    "front?study=digits",
    "front?study=digits&view=parallel",
    "trial?study=digits&n=12",
    "compare?study=digits&t=1,2,3",
    "progress?study=digits",
    "proxies?study=digits",
    "space?study=digits",
    "kernels",
)
"""Every page, of the study that the tests recorded."""
