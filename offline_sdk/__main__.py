"""`python -m offline_sdk`: the same program as `fanxing-verify`."""

from .cli import run

if __name__ == "__main__":
    run()
