"""The recorder: how each cell came out, and with --write-docs the page (see cells.py)."""

import os

os.environ.setdefault("CACHE_DIT_LOG_LEVEL", "error")  # it reads this when it is imported

import contextlib
import json
import platform
from importlib.metadata import PackageNotFoundError, version

import diffusers.hooks
import pytest
import torch
from cells import OUTCOMES, PACKAGES, PAGE, Cell, page, section_of, sections

from enhance_a_video.generation.files import write_text

# The page is about one version of diffusers, the pinned one; an old one lacks what half of it is about.
collect_ignore_glob = [] if hasattr(diffusers.hooks, "SeaCacheConfig") else ["test_*.py"]

STATES = pytest.StashKey[dict]()
MEASURES = pytest.StashKey[dict]()
UNWRITTEN = pytest.StashKey[list]()


def pytest_addoption(parser):
    parser.addoption("--write-docs", action="store_true", help="write docs/reference/compatibility.md from this run")


def pytest_configure(config):
    config.addinivalue_line("markers", "cell(row, column): a cell of docs/reference/compatibility.md")
    config.stash[STATES], config.stash[MEASURES] = {}, {}


def _cells(item):
    return [Cell(section_of(item.module), *mark.args).key for mark in item.iter_markers("cell")]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    states = item.config.stash[STATES]
    for key in _cells(item):
        if report.failed:
            states[key] = ("FAILED", "")
        elif report.skipped and hasattr(report, "wasxfail"):
            states[key] = ("not yet", report.wasxfail)
        elif report.skipped:
            reason = report.longrepr[2].removeprefix("Skipped: ") if isinstance(report.longrepr, tuple) else "skipped"
            states[key] = ("not run here", reason)
        elif report.when == "call":
            states.setdefault(key, ("yes", ""))
    return report


@pytest.fixture
def not_in_diffusers(request):
    """Say that the plain model cannot do it either, after showing that; the reason ends up on the page."""

    def note(reason):
        for key in _cells(request.node):
            request.config.stash[STATES][key] = ("not in diffusers", reason)

    return note


@pytest.fixture
def remark(request):
    """A cell that holds, with something to know about it."""

    def note(reason):
        for key in _cells(request.node):
            request.config.stash[STATES][key] = ("yes", reason)

    return note


@pytest.fixture
def measured(request):
    """Numbers for the page: {what: value as it is printed}."""

    def keep(**values):
        for key in _cells(request.node):
            request.config.stash[MEASURES][key] = values

    return keep


def pytest_sessionfinish(session):
    config = session.config
    if not config.getoption("--write-docs", default=False):  # unknown when pytest was started above this folder
        return
    states = config.stash[STATES]
    known = sections()
    expected = {cell.key for section in known for cell in section.cells}
    wrong = sorted({k for k, (state, _) in states.items() if state == "FAILED"} | (expected ^ set(states)))
    if wrong:
        config.stash[UNWRITTEN] = wrong
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        return
    outcome = {
        "machine": f"Python {platform.python_version()} on {platform.system()} {platform.machine()}, {_accelerator()}",
        "versions": _versions(),
        "cells": {k: list(states[k]) for s in known for k in dict.fromkeys(c.key for c in s.cells)},
        "measures": config.stash[MEASURES],
    }
    write_text(OUTCOMES, json.dumps(outcome, indent=1, ensure_ascii=False) + "\n", force=True)
    write_text(PAGE, page(known, outcome), force=True)


def _accelerator():
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "no accelerator"


def _versions():
    found = {}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def pytest_terminal_summary(terminalreporter, config):
    unwritten = config.stash.get(UNWRITTEN, [])
    if unwritten:
        terminalreporter.write_line(f"{PAGE.name} was not written: failed or not run: " + "; ".join(unwritten))
