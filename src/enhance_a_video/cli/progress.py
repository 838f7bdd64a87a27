"""One progress bar, one way to stop and one list of notes, for every command that takes time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ..generation import events
from ..wording import count
from .app import Stopped, err


@contextmanager
def working(stopped: str = "Stopped.", *, lines: bool = False) -> Iterator[events.Report]:
    """A bar on stderr that shows each event it is called with, and the time left; what went wrong is a line of its own.

    Args:
        stopped: what Ctrl+C leaves, unless the work itself gives that in its KeyboardInterrupt.
        lines: every piece of news is a line where no terminal shows the bar.

    Raises:
        Stopped: for Ctrl+C.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[count]}"))
    times = (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    try:
        with Progress(*columns, *times, console=err, transient=True, speed_estimate_period=3600) as bar:
            task = bar.add_task("starting", total=None, count="")

            def report(event: events.Progress) -> None:
                if event.done < bar.tasks[0].completed - 1:  # the next piece of work
                    bar.reset(task)
                text = f"{event.done} of {count(event.total, event.unit)}" if event.total is not None else ""
                text += f", {event.failed} failed" * bool(event.failed)
                done = event.done + event.parts
                bar.update(task, description=escape(event.doing[:70]), total=event.total, completed=done, count=text)
                if event.news and (event.wrong or (lines and not err.is_terminal)):
                    left = None if err.is_terminal else bar.tasks[0].time_remaining
                    ending = "" if left is None else f", {timedelta(seconds=round(left))} left"
                    err.print(f"{text}{ending}: {escape(event.news)}", highlight=False, soft_wrap=True)

            yield report
    except KeyboardInterrupt as error:
        raise Stopped(str(error) or stopped) from None


class Notes(list[str]):
    """What is not done as requested, one sentence each, none twice: printed on stderr as it comes."""

    def __call__(self, text: str) -> None:
        if text not in self:
            self.append(text)
            err.print(f"[yellow]Note:[/] {escape(text)}", highlight=False, soft_wrap=True)
