"""`count`: numbers with their nouns, for whatever is printed or put on a page: "1 clip", "2,000 clips"."""


def count(number: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun in the right form; `plural` where it is not noun + s."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
