"""Nursery: servers that start at once, each a process of its own, forked from one that has imported all they need.

Imports are most of a server's start, and the tests start a hundred servers.
"""

import multiprocessing
import os
import sys
from collections.abc import Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path

PROCESSES = multiprocessing.get_context("forkserver")
"""Of all that tests fork: a test process has one fork server, which loads what was asked for last."""
PROCESSES.set_forkserver_preload(["scan_api.commands.setup", "tests.faults.log_workers"])


def serve(environment: Mapping[str, str], log_path: Path) -> BaseProcess:
    """Start `fanxing serve` with this environment and no other, in the folder of its log."""
    process = PROCESSES.Process(target=_serve, args=(dict(environment), log_path), daemon=True)
    process.start()
    return process


def _serve(environment: dict[str, str], log_path: Path) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(log_path.parent)
    with log_path.open("ab") as log, open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
    sys.argv = ["fanxing", "serve"]
    from scan_api.commands import main

    main.run()
