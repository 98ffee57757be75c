"""How a program ends: exit codes, and errors as one line that says what happened and what to do.

0 done, 1 failed, 2 wrong usage, 130 interrupted; 3 and 4 for ends of a client that are to stay ends. A user never sees
a traceback; SPOKE_DEBUG=1 shows it to developers.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from spokes.errors import ReplacedError, SpokesError, StoppedByOperatorError, UsageFaultError
from spokes.log import escape
from spokes.outlet import outlet_of

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_REPLACED = 3
EXIT_STOPPED = 4
EXIT_INTERRUPTED = 130
_EXITS = {ReplacedError.code: EXIT_REPLACED, StoppedByOperatorError.code: EXIT_STOPPED}


def run_program(command: click.Command, name: str, args: Sequence[str] | None = None) -> int:
    """Run a command line; the exit code."""
    try:
        # An option without a variable of its own has one by the verb's words: SPOKES_TOKEN_CREATE_DESCRIPTION.
        result = command.main(args=args, prog_name=name, standalone_mode=False, auto_envvar_prefix=name.upper())
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return EXIT_USAGE
    except click.UsageError as error:
        click.UsageError(f"{error.format_message()} [{UsageFaultError.code}]", error.ctx).show()
        return EXIT_USAGE
    except (click.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    except click.ClickException as error:
        return _fail(name, error.format_message())
    except SpokesError as error:
        return _fail(name, error.line(), _EXITS.get(error.code, EXIT_FAILED))
    except BrokenPipeError:
        # Whoever read our output went away; nothing more may be written, not even by the interpreter's own flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error)
        return _fail(name, f"{what} [SPK-SYSTEM]")
    except Exception as error:
        if os.environ.get("SPOKE_DEBUG"):
            raise
        return _fail(name, f"internal fault: {type(error).__name__}: {error}; please report it [SPK-INTERNAL]")


def _fail(name: str, line: str, code: int = EXIT_FAILED) -> int:
    outlet = outlet_of(sys.stderr)
    outlet.write(f"{name}: {escape(line)}\n")
    outlet.flush()
    return code
