"""Lets people judge: a local page that shows blinded pairs of clips with the paper's three questions, and counts.

found = find_pairs("clips")
Server(Ballots("clips/votes.sqlite", found.pairs)).serve_forever()
results("clips").to_dict()
"""

from .ballots import FILE, QUESTIONS, Ballots
from .pairs import Found, Pair, find_pairs
from .results import Results, Row, results
from .server import Server
from .statistics import agreement, win_rate

__all__ = [
    "FILE",
    "QUESTIONS",
    "Ballots",
    "Found",
    "Pair",
    "Results",
    "Row",
    "Server",
    "agreement",
    "find_pairs",
    "results",
    "win_rate",
]
