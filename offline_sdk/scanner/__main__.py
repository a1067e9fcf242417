"""`python -m offline_sdk.scanner`: the same program as `fanxing-scanner`."""

from .main import run

if __name__ == "__main__":
    run()
