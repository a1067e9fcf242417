"""The demonstration: the main job, end to end."""


def demo() -> None:
    """Placeholder until the demonstration is written."""
