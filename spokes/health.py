"""Health check: `python -m spokes.health [DATA]` ends with 0 while the server of that data directory answers.

For what asks every few seconds (containers, load balancers): unlike `spokes status` it loads no command line and asks
for no figures, only whether the server's event loop goes round.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from spokes.control import CONTROL_SOCKET_NAME, call_control
from spokes.errors import SpokesError

DEADLINE_S = 4.0
DATA_DEFAULT = "/var/lib/spokes"


def main(words: list[str]) -> int:
    data = Path(words[0] if words else os.environ.get("SPOKES_DATA") or DATA_DEFAULT)
    try:
        call_control(data / CONTROL_SOCKET_NAME, "health", deadline_s=DEADLINE_S)
    except SpokesError as error:
        print(error.line(), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
