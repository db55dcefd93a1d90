"""The report of a benchmark: one HTML page that needs nothing else, and the same as Markdown with pictures."""
