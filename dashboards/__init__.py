"""What a person sees of a study: figures and pages. The web app comes later.

Nothing here imports plotly before a figure is drawn.
"""

from dashboards.front_data import FrontData, FrontDataError, Metric, Point
from dashboards.front_page import write_front_page

__all__ = ["FrontData", "FrontDataError", "Metric", "Point", "write_front_page"]
