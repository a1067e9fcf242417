"""Program: how a command of this package runs on a process's own arguments and streams, and how it ends."""

import os
import sys
from collections.abc import Callable, Sequence
from typing import Final, NoReturn

EXIT_INTERRUPTED: Final = 130  # 128 + SIGINT, as a shell reports it
EXIT_BROKEN_PIPE: Final = 141  # 128 + SIGPIPE, as a shell reports it


def run(main: Callable[[Sequence[str]], int]) -> NoReturn:
    """Run `main` on the arguments of this process, and exit with the status that it returns."""
    try:
        status = main(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has gone. Python flushes stdout once more at exit and would complain about that too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = EXIT_BROKEN_PIPE
    except KeyboardInterrupt:
        status = EXIT_INTERRUPTED
    sys.exit(status)
