"""The ``grow`` verb: a campaign of generated programs, and what it keeps.

Work is cut into batches (``batch``), whose programs share translation units (``units``).
Workers hand back what they saw; the campaign's own process alone writes (``campaign``,
``state``). Feedback is a set of features (``features``): a program that shows a new one is
shrunk as long as it shows it (``shrinking``), and becomes a case of the corpus. What does
not agree is a finding, in a bucket with its like (``buckets``).
"""

from harness.grow.campaign import Campaign, grow
from harness.grow.summary import Summary, line, summary_json, text

__all__ = ["Campaign", "Summary", "grow", "line", "summary_json", "text"]
