"""Detect a script that worker processes would run again, as spawned Python processes do."""

from __future__ import annotations

import ast
import inspect
import sys
from pathlib import Path

from memdb.errors import InvalidInputError
from memdb.plugins import place_of

GUARDS = {
    "__name__",
    "parent_process",
    "current_process",
}  # names that a script tells itself from a worker by


def require_guarded() -> None:
    """Refuse to start workers from a line of a script that each worker would run again.

    Raises:
        InvalidInputError: names the file and line.
    """
    running = _line_of_script()
    if running is None or is_guarded(*running):
        return
    path, line = running
    raise InvalidInputError(
        f'{place_of(path, line)}: workers are started outside of `if __name__ == "__main__":`, and each '
        f"would run {Path(path).name} from its first line",
        hint="put what the script does below that, or omit workers",
    )


def _line_of_script() -> tuple[str, int] | None:
    """Return the path and current line of the main script; None without one, and in threads."""
    path: str | None = getattr(sys.modules["__main__"], "__file__", None)
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code.co_name == "<module>" and frame.f_globals.get("__name__") == "__main__":
            return None if path != frame.f_code.co_filename else (path, frame.f_lineno)
        frame = frame.f_back
    return None


def is_guarded(path: str, line: int) -> bool:
    """Whether a line is inside, or after an exit inside, an `if` that tells the script from a worker."""
    try:
        statements = ast.parse(Path(path).read_bytes()).body
    except (OSError, SyntaxError, ValueError):
        return True  # unknown; workers report their own errors
    tests = [item for item in statements if isinstance(item, ast.If) and _tells_apart(item.test)]
    inside = any(item.lineno <= line <= (item.end_lineno or 0) for item in tests)
    return inside or any(item.lineno <= line and _ends(item.body[-1]) for item in tests)


def _tells_apart(test: ast.expr) -> bool:
    names = {getattr(node, "id", getattr(node, "attr", "")) for node in ast.walk(test)}
    return not names.isdisjoint(GUARDS)


def _ends(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Raise) or "exit" in ast.unparse(statement)
