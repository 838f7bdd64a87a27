"""The web page without a browser: forms, links, presets, the queue, the gallery, the maker, uploads, access."""

import json
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enhance_a_video.errors import EnhanceAVideoError, PromptError, SettingsError, VideoFileError
from enhance_a_video.generation import video
from enhance_a_video.generation.making import make_file
from enhance_a_video.generation.requests import ClipRequest
from enhance_a_video.settings import Settings
from enhance_a_video.web import player, uploads
from enhance_a_video.web.form import (
    EFFECTS,
    MOST,
    OWN,
    Form,
    Presets,
    form_from_link,
    forms_from,
    link_of,
    seeds_of,
    values_of,
)
from enhance_a_video.web.gallery import Gallery, stacked
from enhance_a_video.web.jobs import FAILED, RUNNING, WAITING, Jobs
from enhance_a_video.web.maker import Maker, Status, sentence
from enhance_a_video.web.models import choices

PROMPT = "a red ball moves right"
fuzzed = hypothesis.settings(deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
FORMS = [
    Form(PROMPT),
    Form(PROMPT, 7, settings=None, options={"steps": 4, "guidance": 3.5, "negative": "blur"}),
    Form(PROMPT, 2**64 - 1, "owner/name", EFFECTS["strong"].to_dict(), {"extra": {"max_sequence_length": 16}}),
    Form(PROMPT, settings=Settings(temperature=4, start=0.0, end=1.0).to_dict(), load={"offload": "model"}),
    Form(PROMPT, settings=Settings(strength=0.5, layers=[0, 1]).to_dict()),
    Form(PROMPT, settings=Settings(odds={"time": 2, "prompt": 1.5}).to_dict()),
    Form(PROMPT, settings=Settings(axis="near:3", odds=1.5).to_dict()),
    Form(PROMPT, settings=Settings(policy={"name": "constant", "gain": 1.2}).to_dict()),
]


@pytest.fixture
def desk(tmp_path):
    """Queue, gallery and maker of one folder; the maker is stopped at the end."""
    jobs, gallery = Jobs(tmp_path / "queue.json"), Gallery(tmp_path / "gallery")
    maker = Maker(jobs, gallery)
    yield maker
    maker.stop(wait=60)


def until_idle(maker, seconds=120):
    end = time.monotonic() + seconds
    while maker.status.busy:
        assert time.monotonic() < end
        time.sleep(0.02)


def form_on(folder, **changed):
    return Form(**{"prompt": PROMPT, "model": str(folder), "options": {"steps": 2}} | changed)


# ----------------------------------------------------------------------------------------------------------- forms


@pytest.mark.parametrize("form", FORMS)
def test_a_form_survives_fields_json_and_panels(form):
    assert Form.from_dict(json.loads(json.dumps(form.to_dict()))) == form
    (again,) = forms_from(values_of(form))
    assert again == form
    assert [label for label, _ in form.panels()] == (["plain"] if form.settings is None else ["plain", "enhanced"])


def test_every_line_with_every_seed():
    forms = forms_from({"prompt": " a\n\n b \n", "seeds": "3, 7-8", "effect": "gentle", "steps": " 4 ", "fps": "12,5"})
    assert [(form.prompt, form.seed) for form in forms] == [(p, s) for p in "ab" for s in (3, 7, 8)]
    assert all(form.effect == "gentle" and form.options == {"steps": 4, "fps": 12.5} for form in forms)


@pytest.mark.parametrize(
    "values, error",
    [
        ({"prompt": "  \n "}, PromptError), ({"seeds": "x"}, SettingsError), ({"seeds": "-1"}, SettingsError),
        ({"seeds": "5-3"}, SettingsError), ({"seeds": f"0-{MOST}"}, SettingsError),
        ({"seeds": str(2**64)}, SettingsError),
        ({"effect": "very"}, SettingsError), ({"steps": "many"}, SettingsError), ({"steps": "0"}, SettingsError),
        ({"steps": "2.5"}, SettingsError), ({"steps": "nan"}, SettingsError), ({"arguments": "{"}, SettingsError),
        ({"arguments": "[1]"}, SettingsError), ({"arguments": '{"generator": 1}'}, SettingsError),
        ({"effect": OWN, "odds": "2", "strength": "1"}, SettingsError), ({"effect": OWN, "odds": "-1"}, SettingsError),
        ({"effect": OWN, "further": '{"none": 1}'}, SettingsError), ({"effect": OWN, "start": "1"}, SettingsError),
        ({"model": "  "}, SettingsError),
    ],
)  # fmt: skip
def test_fields_that_cannot_be_used_are_a_sentence(values, error):
    with pytest.raises(error) as raised:
        forms_from({"prompt": PROMPT, **values})
    assert "\n" not in str(raised.value) and len(str(raised.value)) > 10


@fuzzed
@given(st.dictionaries(st.sampled_from([*values_of(FORMS[0])]), st.one_of(st.text(max_size=30), st.booleans())))
def test_whatever_stands_in_the_fields_gives_forms_or_a_sentence(values):
    try:
        assert forms_from({"prompt": PROMPT, **values})
    except EnhanceAVideoError as error:
        assert str(error)


@pytest.mark.parametrize("form", FORMS)
def test_a_link_carries_settings_and_no_folder(form):
    assert form_from_link(link_of(form).removeprefix("?s=")) == Form(**vars(form) | {"load": {}})
    local = Form(PROMPT, model="/home/me/models/secret")
    assert form_from_link(link_of(local)[3:]).model == "embedded"


@fuzzed
@given(st.text(max_size=60))
def test_any_other_link_is_a_sentence(text):
    with pytest.raises((SettingsError, PromptError)):
        form_from_link(text)


def test_presets_survive_and_have_no_prompt(tmp_path):
    presets = Presets(tmp_path / "presets.json")
    presets.save(" my  own ", FORMS[1])
    kept = Presets(tmp_path / "presets.json").all()["my own"]
    assert kept.options == FORMS[1].options and (kept.prompt, kept.seed) == ("-", 0)
    for name in ("", next(iter(Presets.OURS))):
        with pytest.raises(SettingsError):
            presets.save(name, FORMS[0])
    presets.file.write_text("{")
    with pytest.raises(SettingsError, match="damaged"):
        presets.all()


def test_seeds_are_none_twice():
    assert seeds_of("1 1, 0-2") == (1, 0, 2)


def test_the_packaged_model_is_offered_first():
    names = choices()
    assert names[0] == "embedded" and "Wan-AI/Wan2.1-T2V-1.3B-Diffusers" in names and len(set(names)) == len(names)
    assert not [name for name in names if "i2v" in name.lower()]


# ----------------------------------------------------------------------------------------------------------- queue


def test_the_queue_survives_a_restart_in_its_order(tmp_path):
    jobs = Jobs(tmp_path / "queue.json")
    a, b, c = jobs.add(FORMS[:3])
    jobs.move(c.id, -2)
    jobs.move(b.id, 9)
    jobs.edit(a.id, FORMS[3])
    running = jobs.take()
    assert running.id == c.id and running.state == RUNNING
    with pytest.raises(SettingsError, match="being made"):
        jobs.remove(c.id)
    again = Jobs(tmp_path / "queue.json").all()
    assert [(job.id, job.state) for job in again] == [(c.id, WAITING), (a.id, WAITING), (b.id, WAITING)]
    assert again[1].form == FORMS[3]
    jobs.failed(c.id, "why")
    assert jobs.take().id == a.id and [job.state for job in jobs.all()] == [FAILED, RUNNING, WAITING]
    jobs.remove(b.id)
    jobs.done(a.id)
    assert [job.trouble for job in Jobs(tmp_path / "queue.json").all()] == ["why"]
    with pytest.raises(SettingsError, match="no longer"):
        jobs.move(b.id, 1)


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", '[{"id": 1}]', '[{"id": 1, "form": {}, "state": "x", "trouble": ""}]']
)
def test_a_damaged_queue_is_a_sentence(tmp_path, text):
    (tmp_path / "queue.json").write_text(text)
    with pytest.raises(SettingsError, match="damaged"):
        Jobs(tmp_path / "queue.json")


# --------------------------------------------------------------------------------------------------- maker and gallery


def test_a_pair_is_made_kept_and_restored(desk, tiny_folder):
    form = form_on(tiny_folder, seed=3)
    desk.jobs.add([form])
    desk.start()
    until_idle(desk)
    assert not desk.status.trouble and desk.jobs.all() == []
    (entry,) = Gallery(desk.gallery.folder).entries()
    assert entry.form == form and list(entry.clips) == ["plain", "enhanced"] and entry.id == desk.status.finished
    for path in entry.clips.values():
        assert uploads.restored(path).options == form.options
    assert uploads.restored(entry.clips["enhanced"]) == form
    assert uploads.restored(entry.clips["plain"]).settings is None
    both, fps = video.read_video(entry.stacked)
    assert both.shape == (9, 768, 384, 3) and fps == entry.fps == 8
    plain, _ = video.read_video(entry.clips["plain"])
    assert plain.shape == (9, 32, 32, 3)
    assert "warping error" in entry.words[0] and "gain" in entry.words[1] and len(entry.rows) > 5
    assert set(entry.measures) == {"plain", "enhanced"}
    html = player.result(entry)
    assert (
        html.count("<wipe-player") == 1
        and 'data-second="enhanced"' in html
        and "All " in html
        and "enhance-a-video restore " in html
    )


def test_what_generate_wrote_is_restored_too(tmp_path, tiny_folder):
    how = Settings(strength=0.5)
    item = ClipRequest(PROMPT, 5, "", how, {"steps": 2})
    make_file(tmp_path / "a.mp4", item, model=str(tiny_folder), load={}, force=False, notice=lambda text: None)
    form = uploads.restored(tmp_path / "a.mp4")
    assert (form.prompt, form.seed, form.model, form.options) == (PROMPT, 5, str(tiny_folder), {"steps": 2})
    assert Settings.from_dict(form.settings) == how and form.effect == OWN


def test_off_makes_the_plain_clip_alone(desk, tiny_folder):
    desk.jobs.add([form_on(tiny_folder, settings=None)])
    desk.start()
    until_idle(desk)
    (entry,) = desk.gallery.entries()
    assert list(entry.clips) == ["plain"] and 'data-second=""' in player.result(entry)


def test_stopped_the_clip_waits_again_and_goes_on(desk, tiny_folder):
    desk.jobs.add([form_on(tiny_folder, options={"steps": 400}), form_on(tiny_folder, seed=1)])
    desk.start()
    while not desk.status.done:
        time.sleep(0.01)
    desk.stop(wait=30)
    assert not desk.status.busy and [job.state for job in desk.jobs.all()] == [WAITING, WAITING]
    assert desk.gallery.entries() == [] and not list(desk.gallery.folder.glob(".draft-*"))
    desk.jobs.remove(desk.jobs.all()[0].id)
    desk.start()
    until_idle(desk)
    assert [entry.form.seed for entry in desk.gallery.entries()] == [1]


def test_a_clip_that_fails_reports_why_and_the_next_is_made(desk, tiny_folder):
    desk.jobs.add([form_on(tiny_folder.parent / "nowhere"), form_on(tiny_folder)])
    desk.start()
    until_idle(desk)
    (failed,) = desk.jobs.all()
    assert failed.state == FAILED and "There is no folder" in failed.trouble and len(desk.gallery.entries()) == 1
    assert "failed" in player.label_of(failed, 1)


def test_previews_and_time_left_arrive(desk, tiny_folder):
    seen, update = [], desk._update
    desk._update = lambda **changed: (seen.append(changed), update(**changed))
    desk.jobs.add([form_on(tiny_folder, options={"steps": 6})])
    desk.start()
    until_idle(desk)
    previews = [one["preview"] for one in seen if one.get("preview") is not None]
    assert previews and all(one.dtype == np.uint8 and one.ndim == 4 and one.shape[-1] == 3 for one in previews)
    assert [one["left"] for one in seen if one.get("left") is not None][-1] == 0


def test_the_gallery_leaves_out_what_is_damaged_and_nothing_else(desk, tiny_folder):
    desk.jobs.add([form_on(tiny_folder, seed=seed, settings=None) for seed in range(2)])
    desk.start()
    until_idle(desk)
    first, second = desk.gallery.entries()
    (second.folder / "entry.json").write_text('{"form": 3}')
    (desk.gallery.folder / "notes").mkdir()
    assert [entry.id for entry in Gallery(desk.gallery.folder).entries()] == [first.id]
    path, _ = desk.gallery.beside(first.clips["plain"], first.clips["plain"])
    assert path.parent == desk.gallery.folder
    desk.gallery.remove(first.id)
    assert desk.gallery.entries() == [] and (desk.gallery.folder / "notes").is_dir()


@pytest.mark.parametrize(
    "id", ["", "..", "../..", "/etc", "20260101-000000-00000000", "20260101-000000-0000000g", None]
)
def test_no_id_leaves_the_gallery(tmp_path, id):
    gallery = Gallery(tmp_path / "gallery")
    for act in (gallery.entry, gallery.remove):
        with pytest.raises(SettingsError):
            act(id)
    assert (tmp_path / "gallery").is_dir()


def test_an_entry_names_no_file_outside_of_its_folder(desk, tiny_folder):
    desk.jobs.add([form_on(tiny_folder, settings=None)])
    desk.start()
    until_idle(desk)
    (entry,) = desk.gallery.entries()
    data = json.loads((entry.folder / "entry.json").read_text())
    (entry.folder / "entry.json").write_text(json.dumps(data | {"clips": {"plain": "../../../etc/passwd"}}))
    assert desk.gallery.entry(entry.id).clips["plain"] == entry.folder / "passwd"


def test_stacked_clips_get_the_size_and_length_of_the_first():
    one, other = np.zeros((5, 20, 31, 3), np.uint8), np.full((3, 40, 40, 3), 255, np.uint8)
    both = stacked([one, other])
    assert len(both) == 3 and both.shape[1] % 4 == 0 and both.shape[2] % 2 == 0
    assert both[:, : both.shape[1] // 2].max() == 0 and both[:, both.shape[1] // 2 :].min() == 255


# ---------------------------------------------------------------------------------------------------- uploads, access


def bad_uploads(folder):
    """name -> content of what may be dropped and is not taken."""
    clip = video.video_bytes(np.zeros((4, 32, 32, 3), np.uint8), 8)
    other = video.video_bytes(np.zeros((4, 32, 32, 3), np.uint8), 8, comment='{"prompt": 3}')
    hostile = video.video_bytes(
        np.zeros((4, 32, 32, 3), np.uint8), 8, comment='{"prompt": "a", "seed": -1, "settings": 1}'
    )
    return {
        "empty.mp4": b"", "text.mp4": b"hello", "page.html": b"<script>", "cut.mp4": clip[: len(clip) // 3],
        "without.mp4": clip, "other.mp4": other, "hostile.mp4": hostile, "run.sh": b"#!/bin/sh",
        "zeros.mkv": bytes(5000), "a b ü .mp4": b"\0",
    }  # fmt: skip


def test_what_is_no_clip_of_ours_is_refused_in_a_sentence(tmp_path):
    for name, content in bad_uploads(tmp_path).items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises((VideoFileError, SettingsError)) as raised:
            uploads.restored(path)
        assert str(tmp_path) not in str(raised.value) and "\n" not in str(raised.value), name
    with pytest.raises(VideoFileError, match="did not arrive"):
        uploads.restored(tmp_path / "gone.mp4")


def test_large_and_long_clips_are_refused(tmp_path, monkeypatch):
    path = video.write_video(tmp_path / "a.mp4", np.zeros((8, 32, 32, 3), np.uint8), 4)
    monkeypatch.setattr(uploads, "LONGEST", 1.0)
    with pytest.raises(VideoFileError, match="longer"):
        uploads.restored(path)
    monkeypatch.setattr(uploads, "LARGEST", 100)
    with pytest.raises(VideoFileError, match="more than"):
        uploads.restored(path)


def test_no_token_and_no_traceback_is_shown():
    text = sentence(RuntimeError("401 for hf_abcDEF123\n  at line 3"))
    assert "abcDEF" not in text and "\n" not in text and text.startswith("Unexpected RuntimeError")


def test_what_users_write_is_escaped():
    form = Form("<script>alert(1)</script>")
    busy = Status(busy=True, doing="<b>", notes=("<i>",))
    for html in (player.progress(busy, 1), player.message("<b>"), player.progress(Status(trouble="<b>"), 0)):
        assert "<b>" not in html and "<i>" not in html
    assert "<script>" in form.prompt


def test_other_hosts_need_a_password(tmp_path):
    pytest.importorskip("gradio", reason="pip install 'enhance-a-video[web]'")
    from enhance_a_video.web.page import check_access

    for host, password in (("0.0.0.0", ""), ("192.168.0.2", "short"), ("127.0.0.1", "short")):
        with pytest.raises(SettingsError):
            check_access(host, password)
    check_access("127.0.0.1", "")
    check_access("0.0.0.0", "long enough")


def test_a_port_that_is_taken_is_a_sentence(tmp_path, command):
    pytest.importorskip("gradio", reason="pip install 'enhance-a-video[web]'")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, out, err = command("ui", "--out", tmp_path / "ui", "--port", taken.getsockname()[1], "--json")
    assert code == 2 and "another --port" in json.loads(out)["error"]["message"] and err.count("\n") == 1
    assert not (tmp_path / "ui").exists()


def test_the_password_guards_page_and_files(tmp_path):
    pytest.importorskip("gradio", reason="pip install 'enhance-a-video[web]'")
    from enhance_a_video.web.page import serve

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    blocks, desk = serve(tmp_path / "ui", port=port, password="correct horse")
    try:
        (desk.gallery.folder / "a.txt").write_text("inside")
        visitor = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        address = f"{blocks.local_url}gradio_api/file={desk.gallery.folder / 'a.txt'}"
        for word, refused in (("wrong", True), ("correct horse", False)):
            with pytest.raises(urllib.error.HTTPError, match="401"):
                visitor.open(address)
            form = urllib.parse.urlencode({"username": "anybody", "password": word}).encode()
            if refused:
                with pytest.raises(urllib.error.HTTPError, match="40"):
                    visitor.open(f"{blocks.local_url}login", form)
            else:
                visitor.open(f"{blocks.local_url}login", form)
        assert visitor.open(address).read() == b"inside"
    finally:
        blocks.close(verbose=False)


def test_the_command_serves_until_it_is_stopped(tmp_path, hearing):
    pytest.importorskip("gradio", reason="pip install 'enhance-a-video[web]'")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = ["ui", "--out", tmp_path / "ui", "--port", port, "--json", "--no-credentials"]
    with subprocess.Popen(
        [sys.executable, "-m", "enhance_a_video.cli", *map(str, words)], text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, **hearing,
    ) as process:  # fmt: skip
        data = json.loads(process.stdout.readline())
        page = urllib.request.urlopen(data["url"]).read()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 0 and b"wipe-player" in page
    assert "Traceback" not in err and "The gallery and the queue are kept" in err


@hypothesis.settings(deadline=None, max_examples=200, suppress_health_check=list(hypothesis.HealthCheck))
@given(st.lists(st.tuples(st.integers(0, 3000), st.binary(min_size=1, max_size=8)), max_size=6), st.integers(0, 4000))
def test_a_clip_with_broken_bytes_is_a_form_or_a_sentence(whole_clip, edits, length):
    data = bytearray(whole_clip.read_bytes())
    for place, content in edits:
        data[place : place + len(content)] = content
    broken = whole_clip.with_name("broken.mp4")
    broken.write_bytes(data[: max(1, len(data) - length)] if length < 2000 else data)
    try:
        assert uploads.restored(broken).prompt
    except EnhanceAVideoError as error:
        assert str(error) and "\n" not in str(error)


@pytest.fixture(scope="module")
def whole_clip(tmp_path_factory):
    comment = json.dumps({"prompt": PROMPT, "seed": 1, "settings": None, "options": {"steps": 2}})
    path = tmp_path_factory.mktemp("clip") / "whole.mp4"
    video.write_video(path, np.zeros((4, 32, 32, 3), np.uint8), 8, comment=comment)
    assert uploads.restored(path).seed == 1
    return path


def test_two_threads_may_use_the_queue(tmp_path):
    jobs = Jobs(tmp_path / "queue.json")
    threads = [threading.Thread(target=lambda: [jobs.add([FORMS[0]]) for _ in range(10)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(Jobs(tmp_path / "queue.json").all()) == 40


# ------------------------------------------------------------------------------------- restoring, pictures, loading


def test_a_clip_of_the_gallery_is_restored_beside_what_it_was(desk, tiny_folder):
    desk.jobs.add([form_on(tiny_folder, settings=None, options={"steps": 1, "frames": 5})])
    desk.start()
    until_idle(desk)
    (first,) = desk.gallery.entries()
    form = Form(**vars(first.form) | {"restores": f"{first.id}/plain", "noise": 0.0})
    assert Form.from_dict(json.loads(json.dumps(form.to_dict()))) == form
    desk.jobs.add([form, Form(**vars(form) | {"restores": f"{first.id}/none"})])
    desk.start()
    until_idle(desk)
    entry = next(one for one in desk.gallery.entries() if one.form.restores)
    assert list(entry.clips) == ["before", "restored"] and entry.title.endswith("restored, noise 0")
    assert entry.clips["before"].read_bytes() == first.clips["plain"].read_bytes()
    assert json.loads(video.read_comment(entry.clips["restored"]))["restored"]["file"] == first.clips["plain"].name
    assert "restore" in player.result(entry) and "--noise 0" in player.result(entry)
    (job,) = desk.jobs.all()
    assert job.state == FAILED and "no longer in the gallery" in job.trouble
    with pytest.raises(SettingsError, match="remove it"):
        desk.jobs.edit(job.id, FORMS[0])


def test_loading_can_be_stopped_and_what_was_loaded_is_used(desk, tiny_folder, monkeypatch):
    from enhance_a_video.web import maker

    go_on, loads, load = threading.Event(), [], maker.opened

    def slow(model, how):
        loads.append(model)
        assert go_on.wait(60)
        return load(model, how)

    monkeypatch.setattr(maker, "opened", slow)
    desk.jobs.add([form_on(tiny_folder, settings=None)])
    desk.start()
    while not loads:
        time.sleep(0.01)
    desk.stop()
    until_idle(desk, 10)  # long before the model is there
    assert [job.state for job in desk.jobs.all()] == [WAITING] and not desk.gallery.entries()
    go_on.set()
    desk.start()
    until_idle(desk)
    assert len(loads) == 1 and len(desk.gallery.entries()) == 1


def test_a_model_that_cannot_be_loaded_is_tried_again(desk, tiny_folder):
    desk.jobs.add([form_on("/nowhere"), form_on(tiny_folder, settings=None)])
    desk.start()
    until_idle(desk)
    assert [job.state for job in desk.jobs.all()] == [FAILED] and len(desk.gallery.entries()) == 1


def test_a_first_picture_is_kept_and_no_link_names_it(tmp_path):
    (tmp_path / "pictures").mkdir()
    video.write_png(tmp_path / "x.png", np.full((8, 8, 3), 7, np.uint8))
    kept = uploads.kept_picture(tmp_path / "x.png", tmp_path / "pictures")
    assert kept.parent.name == "pictures" and uploads.kept_picture(kept, tmp_path / "pictures") == kept
    (form,) = forms_from({"prompt": PROMPT, "image": str(kept)})
    assert form.options == {"image": str(kept)} and forms_from(values_of(form)) == [form]
    assert form.items()[0].call()["image"].size == (8, 8)
    assert form_from_link(link_of(form)[3:]).options == {}
    (tmp_path / "bad.png").write_text("no picture")
    with pytest.raises(VideoFileError, match=r"bad\.png"):
        uploads.kept_picture(tmp_path / "bad.png", tmp_path / "pictures")
