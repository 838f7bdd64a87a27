"""The one check of every prompt, wherever it comes in, before any work."""

from typing import Any

from ..errors import PromptError


def checked_prompt(text: Any, where: str = "") -> str:
    """The text itself, if a model can be given it.

    Args:
        where: what the message begins with, such as the file and the line.

    Raises:
        PromptError: no text, nothing visible in it (empty, spaces, invisible characters), not valid Unicode.
    """
    begin = f"{where}: the" if where else "The"
    if not isinstance(text, str):
        raise PromptError(f"{begin} prompt is {text!r}, which is not text.")
    if not any(character.isprintable() and not character.isspace() for character in text):
        raise PromptError(f"{begin} prompt is empty: describe what the video shows.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise PromptError(f"{begin} prompt {text!r} is not valid Unicode text (UTF-8).") from error
    return text
