"""An experiment that anyone can run again: prompts x seeds x settings, all paired by prompt and noise.

study = read_study("study.yaml")
run(study, "out", workers=2)                     # resumable: what is stored is not made again
write_pages(analyse(study, "out"), "out")        # report.html and report.md
"""

from .analysis import Results, analyse
from .definition import Study, parse_study, read_study
from .pages import refuse_foreign, write_pages
from .run import Outcome, notices, run
from .size import StudySize, make_plan

__all__ = [
    "Outcome",
    "Results",
    "Study",
    "StudySize",
    "analyse",
    "make_plan",
    "notices",
    "parse_study",
    "read_study",
    "refuse_foreign",
    "run",
    "write_pages",
]
