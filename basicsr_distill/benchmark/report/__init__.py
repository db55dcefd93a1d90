"""The report of a benchmark: one HTML page that needs nothing else, and the same as Markdown with pictures."""

from basicsr_distill.benchmark.report.page import write_report

__all__ = ['write_report']
