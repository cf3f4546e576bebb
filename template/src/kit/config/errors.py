"""Mistakes that a user can mend: one sentence on stderr and exit code 2, never a traceback."""

import errno
import os
import sys
from collections.abc import Callable, Sequence


class UserError(ValueError):
    """What is wrong and what to do about it, in one sentence."""


def run_main(main: Callable[[list[str]], None], argv: Sequence[str] | None = None) -> None:
    """Run a script's `main(argv)`, and leave with exit code 2 after a `UserError` or a full disk, 130 after Ctrl-C.

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
        leave(str(error))
    except BrokenPipeError:  # whoever read the output has seen enough, such as `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)  # as a shell says of SIGPIPE
    except OSError as error:
        if debug or error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise
        leave(f"Cannot write {error.filename or 'a file'}: {error.strerror}; free some space or choose another folder.")


def leave(message: str) -> None:
    """Print `error: message` to stderr and exit with code 2."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)
