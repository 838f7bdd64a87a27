"""What is printed reaches any terminal or pipe, and what a user wrote is printed as it is."""

import io
import json
import os
import sys
import typing
import warnings
from pathlib import Path

import pytest

from enhance_a_video import cli
from enhance_a_video.cli.commands import app
from enhance_a_video.cli.screen import Screen
from enhance_a_video.generation import terminal, video
from enhance_a_video.lab import pictures

ODD = "[red] [/] :cat: τ <b>$\\frac{"


def in_encoding(monkeypatch, encoding: str, *words) -> tuple[int, bytes, bytes]:
    """A command's exit code, stdout and stderr, both strict streams of this encoding."""
    streams = {name: io.TextIOWrapper(io.BytesIO(), encoding=encoding) for name in ("stdout", "stderr")}
    for name, stream in streams.items():
        monkeypatch.setattr(sys, name, stream)
    with pytest.raises(SystemExit) as left:
        cli.main([str(word) for word in words])
    return int(left.value.code or 0), *(stream.buffer.getvalue() for stream in streams.values())


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
@pytest.mark.parametrize("words", [["models"], ["--help"], ["study", "日本 τ.yaml"], ["vote", "\udcff"]])
def test_no_encoding_stops_a_command(monkeypatch, tmp_path, encoding, words):
    monkeypatch.chdir(tmp_path)
    code, out, err = in_encoding(monkeypatch, encoding, *words)
    assert code == (2 if len(words) > 1 else 0)
    assert (out if code == 0 else err).decode(encoding)


def test_what_an_encoding_lacks_is_written_plainly(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    with terminal.streams():
        print("0.2 ± 0.1 – τ ╭─╮ 日")
    assert stream.buffer.getvalue().decode().strip() == "0.2 +- 0.1 - tau +-+ \\u65e5"


def test_json_is_ascii_whatever_is_in_it(capsys):
    data = {"prompt": "日本 \ud83d"}
    terminal.print_json(data)
    text = capsys.readouterr().out
    assert text.isascii() and json.loads(text) == data


def test_what_a_user_wrote_is_no_markup(monkeypatch, tiny_folder, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    words = ("--panel", f"{ODD.replace(':', '')}\n: strength=0.5", "--steps", 1, "--frames", 5, "--out", "[red]")
    code, out, err = in_encoding(monkeypatch, "cp1252", "compare", "--model", tiny_folder, "-p", ODD, *words)
    assert code == 0, err
    text = out.decode("cp1252")
    assert "[red] [/] cat" in text and "[red]/report.html" in text
    assert "&lt;b&gt;$\\frac{" in Path("[red]/report.html").read_text(encoding="utf-8")
    assert json.loads(video.read_comment("[red]/baseline.mp4"))["prompt"] == ODD


@pytest.mark.parametrize("label", ["two\nlines", "", "a\tb\0c", "😀 مرحبا", "\ud83d", "x" * 3000])
def test_any_label_can_be_drawn(label):
    assert pictures.label_bar(label, 200, 16).shape == (30, 200, 3)


def test_a_reader_that_goes_away_does_not_stop_the_work_and_the_exit_code_shows_it(monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    monkeypatch.setattr(sys, "stdout", open(writer, "w", encoding="utf-8"))  # noqa: SIM115
    done = []
    with pytest.raises(SystemExit) as left, terminal.streams():
        Screen().print("x\n" * 10_000)
        terminal.print_json({"x": "x" * 100_000})
        print("the work goes on")
        done.append(True)
    assert done and left.value.code == 141  # as `yes | head` reports it
    sys.stdout.close()


@pytest.mark.parametrize("words", [["--help"], ["generate", "--help"], ["models"], ["models", "--json"]])
def test_every_command_exits_with_141_where_nobody_read_it(monkeypatch, words):
    reader, writer = os.pipe()
    os.close(reader)
    monkeypatch.setattr(sys, "stdout", open(writer, "w", encoding="utf-8"))  # noqa: SIM115
    with pytest.raises(SystemExit) as left:
        cli.main(words)
    assert left.value.code == 141
    sys.stdout.close()


def test_what_python_warns_of_is_a_note_and_in_the_object_once(capsys):
    notes = []
    with terminal.warnings_as_notes(notes.append):
        for _ in range(2):
            warnings.warn("no locks\nhere", stacklevel=1)
        terminal.print_json({"command": "batch", "warnings": ["another"]})
    assert notes == ["no locks here"]
    assert json.loads(capsys.readouterr().out)["warnings"] == ["another", "no locks here"]
    terminal.print_json({})
    assert json.loads(capsys.readouterr().out) == {}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_output_that_could_not_be_written_is_an_error(monkeypatch):
    for write in (print, terminal.print_json):
        monkeypatch.setattr(sys, "stdout", open("/dev/full", "w", encoding="utf-8"))  # noqa: SIM115
        with pytest.raises(SystemExit, match="could not be written: No space left"), terminal.streams():
            write("x")
        sys.stdout.close()


# ---------------------------------------------------------------------------------------------------- paths


def test_every_path_option_takes_home_and_refuses_nothing():
    from enhance_a_video.cli.options import path_of

    found = 0
    for command in app.registered_commands:
        for name, hint in typing.get_type_hints(command.callback, include_extras=True).items():
            if "Path" in str(typing.get_args(hint)[:1]):
                assert hint.__metadata__[0].parser is path_of, f"{command.callback.__name__}: {name}"
                found += 1
    assert found >= 12


@pytest.mark.parametrize("path", ["", "  "])
def test_an_empty_path_is_refused(command, path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words in (["compare", "-p", "x", "-o", path], ["vote", path], ["generate", "-p", "x", f"--out={path}"]):
        code, out, err = command(*words)
        assert code == 2 and "empty path" in " ".join(err.split()) and not out
    assert not os.listdir(tmp_path)


def test_home_in_paths_that_the_shell_leaves_alone(command, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "prompts.txt").write_text("a red ball moves right\n")
    (tmp_path / "profile.json").write_text('{"name": "constant", "gain": 1.1}')
    study = tmp_path / "deeper" / "study.yaml"
    study.parent.mkdir()
    study.write_text("prompts: ~/prompts.txt\nsettings: {plain: null, tuned: {policy: ~/profile.json}}\n")
    code, out, err = command("study", "~/deeper/study.yaml", "--plan", "--out=~/results", "--json")
    assert code == 0, err
    assert json.loads(out)["out"] == str(tmp_path / "results") and json.loads(out)["plan"]["clips"] == 2
