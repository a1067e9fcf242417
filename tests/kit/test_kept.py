"""What is kept in memory, and what is forgotten for it."""

from kit.kept import Kept


def test_the_oldest_is_forgotten_when_another_comes() -> None:
    kept: Kept[str, int] = Kept(2)
    kept["a"], kept["b"] = 1, 2
    kept["a"] = 3  # known already: nothing makes room for it
    assert kept == {"a": 3, "b": 2}
    kept["c"] = 4
    assert kept == {"b": 2, "c": 4}
