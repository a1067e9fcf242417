"""Measurements, each beside a yardstick taken in the same run: `make bench`, or `python -m tests.bench codes checks`.

The machine is shared and noisy, so a figure means little without its yardstick, and the two are measured in turns.
"""
