"""Content credentials (C2PA) of the videos that are made here: signed as the last step of writing, and read.

What they contain and what they protect from: docs/guide/responsible-use.md. Needs the extra [credentials]; without it
clips are written unlabelled, with one warning.
"""

from .reading import Credentials, read_credentials
from .signing import OFF, Claim, chosen, sign, unlabelled

__all__ = ["OFF", "Claim", "Credentials", "chosen", "read_credentials", "sign", "unlabelled"]
