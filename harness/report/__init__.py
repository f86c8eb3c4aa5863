"""A run, a campaign or a parity as one HTML page that needs nothing else.

The page reads without its script; the script only adds a filter. All of what a page says
comes from JSON forms that the commands write, so a page can be made long after, elsewhere.
"""

from harness.report.reading import page, read

__all__ = ["page", "read"]
