"""The command line: argument parsing, progress and printing only; a file for each group of commands.

`main` is the entry point. It needs nothing but the standard library until it has checked that the command's extras are
installed. torch and diffusers are imported inside the commands, so that --help answers at once.
"""

from __future__ import annotations

import sys

from ..errors import MissingExtraError
from ..extras import require
from ..generation.terminal import print_json

# command -> the extras that it needs besides [cli]
NEEDS: dict[str, tuple[str, ...]] = {
    "generate": ("video",), "batch": ("video",), "restore": ("video",), "inspect": ("video",),
    "demo": ("lab",), "compare": ("lab",), "study": ("lab",), "tune": ("lab",), "score": ("lab",), "vote": ("lab",),
    "ui": ("web",), "models": (),
}  # fmt: skip


def main(argv: list[str] | None = None) -> None:
    """Runs one command, the words of `argv` or of this process, and exits with its code: see `app.main`.

    A command whose extras are not installed prints in one line which to install, and exits with 2.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    command = next((word for word in words if not word.startswith("-")), "")
    needs = () if {"-h", "--help"} & set(words) else NEEDS.get(command, ())
    try:
        require(f"enhance-a-video {command}".strip(), "cli", *needs)
    except MissingExtraError as error:
        if "--json" in words:
            print_json({"command": command or None, "error": {"class": "MissingExtraError", "message": str(error)}})
        print(f"Error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    from .commands import main as run

    run(words)
