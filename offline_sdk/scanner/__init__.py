"""The program `fanxing-scanner`: judges the codes that a shop counter's hand scanner reads, with or without a network.

docs/scanner.md describes it. It stands on the rest of this package; only what shows, signs or reads a port needs the
extra "scanner".
"""
