"""Errors that users can fix: one sentence on stderr and exit code 2, no traceback.

Standard library only: scripts that must run where nothing is installed import it directly, all others from
`src.kit.config`.
"""

import errno
import os
import sys
from collections.abc import Callable, Sequence

__all__ = ["UserError", "run_main"]


class UserError(ValueError):
    """What is wrong and what to do about it, in one sentence."""


def run_main(main: Callable[[list[str]], None], argv: Sequence[str] | None = None) -> None:
    """Run a script's `main(argv)`; exit with 2 after a `UserError` or an unwritable disk, with 130 after Ctrl-C.

    `--debug` anywhere on the command line shows the traceback instead.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        main(arguments)
    except KeyboardInterrupt:
        if debug:
            raise
        sys.exit(130)
    except UserError as error:
        if debug:
            raise
        exit_with(str(error))
    except BrokenPipeError:  # the reader has closed the pipe, such as `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)  # what a shell reports for SIGPIPE
    except OSError as error:
        if debug or error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise
        exit_with(
            f"Cannot write {error.filename or 'a file'}: {error.strerror}; free some space or choose another folder."
        )


def exit_with(message: str) -> None:
    """Print `error: message` to stderr and exit with code 2."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)
