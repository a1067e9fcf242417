"""Draws that anybody can recompute: committed to before the first play, revealed after the last."""
