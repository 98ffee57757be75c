"""Small C programs that benchmarks need, compiled on first use."""

from __future__ import annotations

from pathlib import Path

from benchmarks.machine import REPOSITORY
from benchmarks.processes import BenchmarkError, MissingError, Room, find_program

BUILT = REPOSITORY / ".bench"


def built(room: Room, source: Path, *libraries: str) -> Path:
    """The program of `source`, compiled where it is older; MissingError where it does not compile here."""
    program = BUILT / source.stem
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        BUILT.mkdir(exist_ok=True)
        try:
            room.run([find_program("gcc"), "-O2", "-Wall", "-o", str(program), str(source),
                      *(f"-l{library}" for library in libraries)])
        except BenchmarkError as error:
            raise MissingError(f"{source.name} does not compile here: {error}") from None
    return program
