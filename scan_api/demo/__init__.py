"""The demonstration: each of the four users does his job once, for real, and every step is checked."""
