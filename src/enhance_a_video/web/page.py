"""The page itself: its fields and buttons (Gradio), their handlers, and the server. State is in other files."""

from __future__ import annotations

import hmac
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import EnhanceAVideoError, SettingsError
from ..generation import files
from ..generation.loading import EMBEDDED, defaults_in, source_of
from ..generation.restore import NOISE
from ..wording import count
from . import player, uploads
from .form import EFFECTS, KNOBS, LOADING, OWN, Form, Presets, form_from_link, forms_from, link_of, values_of
from .gallery import Entry, Gallery
from .jobs import WAITING, Jobs
from .maker import Maker, sentence
from .models import choices

_HERE = Path(__file__).parent
_LOCAL = ("127.0.0.1", "localhost", "::1")
_SHORTEST = 8  # characters of a password
_TICK = 0.7  # seconds between two reads of the maker's status
_NOISES = [("light alone, no model", 0.0), (f"gentle: noise {NOISE:g}", NOISE), ("strong: noise 0.4", 0.4)]
_HEAD = """<div id="ev-head"><h1>Enhance-A-Video</h1>
<p>Steadier video from any diffusion model, without training. Write what it shows and press Generate.</p></div>"""


class Desk:
    """What lies behind the page: queue, gallery, presets and the maker, all in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.gallery = Gallery(folder / "gallery")
        self.pictures = folder / "pictures"
        self.jobs = Jobs(folder / "queue.json")
        self.presets = Presets(folder / "presets.json")
        self.maker = Maker(self.jobs, self.gallery)

    def state(self) -> tuple[Any, ...]:
        """What the page shows besides its fields; another value when it has to be drawn again."""
        return (self.maker.status.version, tuple(self.jobs.all()), self.maker.status.finished)


def check_access(host: str, password: str) -> None:
    """SettingsError where other machines would reach the page without a password."""
    if host not in _LOCAL and not password:
        raise SettingsError(
            f"--host {host} lets other machines use this one: give a password too, in ENHANCE_A_VIDEO_PASSWORD or with "
            "--password, or leave --host out."
        )
    if password and len(password) < _SHORTEST:
        raise SettingsError(f"The password is too short: give one of {_SHORTEST} characters or more.")


def serve(folder: Path, *, host: str = "127.0.0.1", port: int = 7860, password: str = "", browser: bool = False) -> Any:
    """Starts serving the page from a thread and returns Gradio's Blocks, with `local_url` and `close()`; and the Desk.

    Raises:
        SettingsError: another host without a password; a host or port that cannot be used; a damaged queue.
        VideoFileError: the folder cannot be written.
    """
    check_access(host, password)
    _check_port(host, port)
    desk = Desk(folder.absolute())
    os.environ["GRADIO_TEMP_DIR"] = str(desk.folder / ".uploads")  # no upload leaves the folder
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    import gradio as gr

    blocks = Page(desk, gr).blocks
    theme = gr.themes.Default(
        primary_hue="indigo", neutral_hue="slate",
        font=["system-ui", "-apple-system", "Segoe UI", "sans-serif"], font_mono=["ui-monospace", "monospace"],
    )  # fmt: skip
    style, script = ((_HERE / name).read_text(encoding="utf-8") for name in ("page.css", "wipe.js"))
    blocks.launch(
        server_name=host, server_port=port, prevent_thread_lock=True, quiet=True, share=False, inbrowser=browser,
        auth=(lambda name, word: hmac.compare_digest(word.encode(), password.encode())) if password else None,
        auth_message="Any name, and the password that was given on the command line." if password else None,
        allowed_paths=[str(desk.gallery.folder), str(desk.pictures)], max_file_size=uploads.LARGEST,
        show_error=False, footer_links=[],
        theme=theme, head=f"<style>{style}</style><script>{script}</script>",  # css= would rewrite the selectors
        ssr_mode=False, enable_monitoring=False, mcp_server=False, pwa=False,
    )  # fmt: skip
    return blocks, desk


def _check_port(host: str, port: int) -> None:
    """SettingsError where the page could not listen there."""
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            pass
    except OSError as error:
        why = f"the page cannot listen there ({files.reason(error)})"
        raise SettingsError(
            f"--host {host} --port {port}: {why}: give another --port, such as {port % 65535 + 1}."
        ) from None


class Page:
    """The Blocks of one desk. Handlers return one value for each output; where they raise, one sentence is shown."""

    def __init__(self, desk: Desk, gr: Any) -> None:
        self.desk, self.gr = desk, gr
        self.fields: dict[str, Any] = {}
        with gr.Blocks(title="Enhance-A-Video", analytics_enabled=False, fill_width=True) as self.blocks:
            gr.HTML(_HEAD)
            self.seen, self.shown = gr.State(None), gr.State("")
            with gr.Row():
                with gr.Column(scale=5, min_width=320):
                    self._ask()
                with gr.Column(scale=6, min_width=320):
                    self.result = gr.HTML(player.result(None))
                    with gr.Row():
                        self.again = gr.Button("Make one more", size="sm", min_width=120)
                        self.use = gr.Button("Use its settings", size="sm", min_width=120)
                        self.drop = gr.Button("Delete", size="sm", min_width=80)
                    self.sure, self.yes, self.no = self._question("Delete this clip and its files?")
                    with gr.Row():
                        self.noise = gr.Dropdown(
                            _NOISES, value=NOISE, show_label=False, container=False, min_width=180,
                            elem_id="ev-noise", filterable=False,
                        )  # fmt: skip
                        self.restore = gr.Button("Restore this clip", size="sm", min_width=140)
            self._keep()
            self._wire()

    # ------------------------------------------------------------------------------------------------ what is shown

    def _ask(self) -> None:
        gr, fields = self.gr, self.fields
        known = defaults_in(Path(source_of(EMBEDDED)))
        fields["prompt"] = gr.Textbox(
            known.get("prompt", ""),
            label="Prompt",
            lines=3,
            info="What the video shows. Each line is a clip of its own.",
        )
        fields["model"] = gr.Dropdown(
            choices(), value=EMBEDDED, label="Model", allow_custom_value=True,
            info="embedded comes with the package and runs anywhere. Or write a folder or a hub id.",
        )  # fmt: skip
        fields["effect"] = gr.Radio([*EFFECTS, OWN], value="standard", label="Strength of the effect")
        fields["seeds"] = gr.Textbox("0", label="Seeds", info="0, or 3, 7, or 0-4: a clip for each.", max_lines=1)
        with gr.Row():
            self.go = gr.Button("Generate", variant="primary", elem_id="ev-go", scale=3)
            self.stop = gr.Button("Stop", variant="stop", elem_id="ev-stop", scale=1)
        self.message, self.progress = gr.HTML(), gr.HTML()
        with gr.Accordion("Expert knobs", open=False):
            self._knobs()
        with gr.Accordion("Presets, links, settings from a clip", open=False):
            self.preset = gr.Dropdown(list(self._presets()), value=None, label="Preset")
            with gr.Row():
                self.name = gr.Textbox(label="Save these settings as", max_lines=1, scale=3, min_width=160)
                self.save = gr.Button("Save", scale=1, min_width=80)
            self.link = gr.Button("Link to these settings", size="sm")
            self.address = gr.Textbox(label="Link", buttons=["copy"], interactive=False, max_lines=2, elem_id="ev-link")
        self.clip = gr.File(
            label="Drop a clip here: its settings come back", file_types=list(uploads.TYPES), height=150,
            elem_id="ev-clip",
        )  # fmt: skip

    def _question(self, text: str) -> tuple[Any, Any, Any]:
        """A question that is hidden until it is needed, and its two answers."""
        gr = self.gr
        with gr.Column(visible=False) as question:
            gr.HTML(f'<p class="ev-question" role="alert">{text}</p>')
            with gr.Row():
                yes = gr.Button("Yes, delete", variant="stop", size="sm", min_width=110)
                no = gr.Button("No, keep it", size="sm", min_width=110)
        return question, yes, no

    def _knobs(self) -> None:
        gr, fields = self.gr, self.fields
        gr.HTML(f"<p class='ev-note'>The first five and further settings act with the strength “{OWN}”.</p>")
        with gr.Row():
            for name, info in zip(
                KNOBS,
                (
                    "2 is standard; 1 does nothing", "the paper's gain, at most 1 + this", "the paper's own knob",
                    "0: from pure noise on", "1: until the clip is clean",
                ),
                strict=True,
            ):  # fmt: skip
                fields[name] = gr.Textbox("", label=name.capitalize(), info=info, max_lines=1, min_width=130)
        fields["further"] = gr.Textbox(
            "", label="Further settings, JSON", placeholder='{"layers": [0, 1]}', max_lines=2
        )
        fields["image"] = gr.Image(
            label="First picture, for models that start from one", type="filepath", sources=["upload"], height=160,
            elem_id="ev-image",
        )  # fmt: skip
        fields["negative"] = gr.Textbox("", label="What it should not show", max_lines=2)
        with gr.Row():
            for name in ("steps", "guidance", "frames", "width", "height", "fps"):
                fields[name] = gr.Textbox("", label=name.capitalize(), max_lines=1, min_width=90, placeholder="auto")
        fields["arguments"] = gr.Textbox(
            "", label="Further arguments of the pipeline, JSON", placeholder='{"max_sequence_length": 64}', max_lines=2
        )
        with gr.Row():
            words: dict[str, list[str]] = {
                "dtype": ["auto", "bfloat16", "float16", "float32"], "device": ["auto", "cuda", "mps", "cpu"],
                "offload": ["none", "model", "group", "sequential"],
            }  # fmt: skip
            for name, known in words.items():
                fields[name] = gr.Dropdown(known, value=LOADING[name], label=name.capitalize(), min_width=120)
        fields["vae_tiling"] = gr.Checkbox(False, label="Decode in tiles (less memory)")

    def _keep(self) -> None:
        gr = self.gr
        self.ids = gr.State([])
        self.pictures = gr.Gallery(
            label="Gallery", columns=6, height="auto", allow_preview=False, object_fit="cover", buttons=[],
            fit_columns=False, elem_id="ev-gallery",
        )  # fmt: skip
        with gr.Accordion("Compare two clips", open=False):
            with gr.Row():
                self.first = gr.Dropdown([], label="A", min_width=220)
                self.second = gr.Dropdown([], label="B", min_width=220)
                self.compare = gr.Button("Compare", scale=0, min_width=120)
            self.compared = gr.HTML()
        with gr.Accordion("Queue", open=False):
            self.queue = gr.Radio([], label="What waits", elem_id="ev-jobs")
            with gr.Row():
                self.acts = {
                    act: gr.Button(text, size="sm", min_width=90)
                    for act, text in (
                        ("earlier", "Earlier"), ("later", "Later"), ("edit", "Edit"),
                        ("replace", "Replace by the fields"), ("retry", "Try again"), ("remove", "Remove"),
                        ("run", "Go on with the queue"),
                    )
                }  # fmt: skip
            self.job_sure, self.job_yes, self.job_no = self._question("Take this clip out of the queue?")

    # ------------------------------------------------------------------------------------------- which button does what

    def _wire(self) -> None:
        gr, every = self.gr, list(self.fields.values())
        own = [self.fields[name] for name in (*KNOBS, "further")]
        gr.on([field.input for field in own], lambda: OWN, None, self.fields["effect"], **_QUIET)
        self._on(self.go.click, self._go, every, [])
        self._on(self.stop.click, self._stop, [], [])
        self._on(self.clip.upload, self._restore, [self.clip], [self.clip, *every])
        self._on(self.preset.input, self._preset, [self.preset, *every], every)
        self._on(self.save.click, self._save, [self.name, *every], [self.preset])
        self._on(self.link.click, self._link, every, [self.address])
        self._on(self.again.click, self._again, [self.shown], [])
        self._on(self.use.click, lambda id: (*self._fill(self._entry(id).form), "Its settings are in the fields."),
                 [self.shown], every)  # fmt: skip
        lists = [self.shown, self.result, *self._lists()]
        self._on(self.drop.click, self._ask_delete, [self.shown], [self.sure])
        self._on(self.yes.click, self._delete, [self.shown], [self.sure, *lists])
        self._on(self.restore.click, self._restore_clip, [self.shown, self.noise], [])
        for button, row in ((self.no, self.sure), (self.job_no, self.job_sure)):
            self._on(button.click, lambda: (gr.update(visible=False), ""), [], [row])
        self._on(self.acts["remove"].click, self._ask_remove, [self.queue], [self.job_sure])
        self._on(self.job_yes.click, self._remove, [self.queue], [self.job_sure, self.queue])
        self._on(self.pictures.select, self._select, [self.ids], [self.shown, self.result])
        self._on(self.compare.click, self._compare, [self.first, self.second], [self.compared])
        for act, button in self.acts.items():
            if act == "remove":
                continue
            self._on(button.click, self._act(act), [self.queue, *every], [self.queue, *every])
        drawn = [self.seen, self.shown, self.progress, self.result, self.queue, *self._lists()]
        gr.Timer(_TICK).tick(self._tick, [self.seen, self.shown, self.queue], drawn, **_QUIET)
        self._on(self.blocks.load, self._open, [], [self.shown, self.result, *every])

    def _lists(self) -> list[Any]:
        return [self.ids, self.pictures, self.first, self.second]

    def _on(self, event: Callable[..., Any], act: Callable[..., Any], inputs: list[Any], outputs: list[Any]) -> None:
        """An event whose handler returns a value for each output and then the sentence to show."""

        def guarded(*given: Any) -> tuple[Any, ...]:
            try:
                *values, text = act(*given)
                return (*values, player.message(text))
            except Exception as error:
                return (*(self.gr.skip() for _ in outputs), player.message(sentence(error), wrong=True))

        if act == self._select:

            def selected(ids: list[str], event: Any) -> tuple[Any, ...]:
                return guarded(ids, event.index)

            selected.__annotations__["event"] = self.gr.SelectData
            event(selected, inputs, [*outputs, self.message], **_QUIET)
        elif act == self._open or act == self._link:

            def requested(request: Any, *given: Any) -> tuple[Any, ...]:
                return guarded(request, *given)

            requested.__annotations__["request"] = self.gr.Request  # Gradio hands it over by this
            event(requested, inputs, [*outputs, self.message], **_QUIET)
        else:
            event(guarded, inputs, [*outputs, self.message], **_QUIET)

    # ----------------------------------------------------------------------------------------------------- the handlers

    def _forms(self, values: tuple[Any, ...]) -> list[Form]:
        return forms_from(dict(zip(self.fields, values, strict=True)))

    def _fill(self, form: Form, keep: tuple[str, ...] = ()) -> list[Any]:
        values = values_of(form)
        return [self.gr.skip() if name in keep else self.gr.update(value=values[name]) for name in self.fields]

    def _go(self, *values: Any) -> tuple[Any, ...]:
        given = dict(zip(self.fields, values, strict=True))
        if given["image"]:
            given["image"] = str(uploads.kept_picture(given["image"], self.desk.pictures))
        forms = forms_from(given)
        self.desk.jobs.add(forms)
        self.desk.maker.start()
        return ("" if len(forms) == 1 else f"{count(len(forms), 'clip')} in the queue.",)

    def _stop(self) -> tuple[Any, ...]:
        busy = self.desk.maker.status.busy
        self.desk.maker.stop()
        text = "Stopping after this step. The clip waits in the queue." if busy else "Nothing is being made."
        return (text,)

    def _again(self, id: str) -> tuple[Any, ...]:
        form = self._entry(id).form
        self.desk.jobs.add([replace(form, seed=form.seed + 1)])
        self.desk.maker.start()
        return (f"One more, with seed {form.seed + 1}.",)

    def _restore(self, file: str) -> tuple[Any, ...]:
        try:
            form = uploads.restored(file)
        finally:
            with suppress(OSError):
                Path(file).unlink()
        return (None, *self._fill(form), "The clip's settings are in the fields.")

    def _presets(self) -> dict[str, Form]:
        try:
            return self.desk.presets.all()
        except EnhanceAVideoError:  # reported where one is saved
            return Presets.OURS

    def _preset(self, name: str, *values: Any) -> tuple[Any, ...]:
        form = self._presets().get(name)
        if form is None:
            raise SettingsError("This preset is gone.")
        return (*self._fill(form, keep=("prompt", "seeds")), f"The settings are those of “{name}”.")

    def _save(self, name: str, *values: Any) -> tuple[Any, ...]:
        self.desk.presets.save(name, self._forms(values)[0])
        name = " ".join(name.split())[:60]
        return (self.gr.update(choices=list(self._presets()), value=name), f"Saved as “{name}”.")

    def _link(self, request: Any, *values: Any) -> tuple[Any, ...]:
        origin = request.headers.get("origin") or f"http://{request.headers.get('host', '')}"
        return (f"{origin}/{link_of(self._forms(values)[0])}", "Whoever opens the link finds these settings.")

    def _entry(self, id: str) -> Entry:
        if not id:
            raise SettingsError("No clip is shown: choose one in the gallery.")
        return self.desk.gallery.entry(id)

    def _select(self, ids: list[str], index: int) -> tuple[Any, ...]:
        entry = self._entry(ids[index] if 0 <= index < len(ids) else "")
        return entry.id, player.result(entry), ""

    def _restore_clip(self, id: str, noise: float) -> tuple[Any, ...]:
        entry = self._entry(id)
        label = list(entry.clips)[-1]
        form = replace(entry.form, restores=f"{entry.id}/{label}", noise=noise)
        self.desk.jobs.add([form])
        self.desk.maker.start()
        return (f"The {label} clip is being restored; the gallery gets it beside what it was.",)

    def _ask_delete(self, id: str) -> tuple[Any, ...]:
        self._entry(id)
        return self.gr.update(visible=True), ""

    def _ask_remove(self, id: str | None) -> tuple[Any, ...]:
        if not id:
            raise SettingsError("Choose a clip of the queue first.")
        return self.gr.update(visible=True), ""

    def _remove(self, id: str | None) -> tuple[Any, ...]:
        self.desk.jobs.remove(id or "")
        return self.gr.update(visible=False), self._drawn_queue(id), "Removed."

    def _delete(self, id: str) -> tuple[Any, ...]:
        self.desk.gallery.remove(self._entry(id).id)
        return self.gr.update(visible=False), "", player.result(None), *self._drawn_lists(), "Deleted."

    def _compare(self, first: str, second: str) -> tuple[Any, ...]:
        if not first or not second or first == second:
            raise SettingsError("Choose two different clips of the gallery.")
        one, other = self.desk.gallery.clip(first), self.desk.gallery.clip(second)
        path, fps = self.desk.gallery.beside(one[1].clips[one[0]], other[1].clips[other[0]])
        return player.compared(one, other, path, fps), ""

    def _act(self, act: str) -> Callable[..., Any]:
        jobs = self.desk.jobs

        def acted(id: str | None, *values: Any) -> tuple[Any, ...]:
            same, text = [self.gr.skip() for _ in self.fields], ""
            if act == "run":
                self.desk.maker.start()
                return (self.gr.skip(), *same, "")
            if not id:
                raise SettingsError("Choose a clip of the queue first.")
            if act in ("earlier", "later"):
                jobs.move(id, -1 if act == "earlier" else 1)
            elif act == "edit":
                form = next((job.form for job in jobs.all() if job.id == id), None)
                if form is None or form.restores:
                    raise SettingsError("This one has no fields: it restores a clip, or is no longer in the queue.")
                same, text = self._fill(form), "Change the fields, then press “Replace by the fields” in the queue."
            elif act == "replace":
                jobs.edit(id, self._forms(values)[0])
            else:
                jobs.again(id)
                self.desk.maker.start()
            return (self._drawn_queue(id), *same, text)

        return acted

    # ----------------------------------------------------------------------------------------------- drawn by the timer

    def _tick(self, seen: Any, shown: str, chosen: str | None) -> tuple[Any, ...]:
        state, skip = self.desk.state(), self.gr.skip()
        if state == seen:
            return (skip,) * 9
        now = self.desk.maker.status
        finished = seen is None or state[2] != seen[2]
        waiting = sum(job.state == WAITING for job in state[1])
        drawn: tuple[Any, ...] = (state, skip, player.progress(now, waiting), skip, self._drawn_queue(chosen))
        if finished and now.finished and seen is not None:
            with suppress(EnhanceAVideoError):  # deleted meanwhile
                entry = self.desk.gallery.entry(now.finished)
                drawn = (state, entry.id, player.progress(now, waiting), player.result(entry), drawn[-1])
        return (*drawn, *(self._drawn_lists() if finished else (skip,) * 4))

    def _drawn_queue(self, chosen: str | None) -> Any:
        jobs = self.desk.jobs.all()
        left = chosen is None or any(job.id == chosen for job in jobs)
        change = {} if left else {"value": None}  # else no value, so that a choice made meanwhile stays
        lines = [(player.label_of(job, number), job.id) for number, job in enumerate(jobs, 1)]
        label = f"What waits ({len(jobs)})" if jobs else "Nothing waits"
        return self.gr.update(choices=lines, label=label, **change)

    def _drawn_lists(self) -> tuple[Any, ...]:
        entries = self.desk.gallery.entries()
        ids = [entry.id for entry in entries]
        pictures = [(str(entry.poster), entry.title) for entry in entries]
        clips = [(f"{entry.title}, {label}", f"{entry.id}/{label}") for entry in entries for label in entry.clips]
        lists = self.gr.update(choices=clips)
        return ids, pictures, lists, lists

    def _open(self, request: Any) -> tuple[Any, ...]:
        entries = self.desk.gallery.entries()
        entry = entries[0] if entries else None
        link = dict(request.query_params).get("s", "") if request is not None else ""
        fields = self._fill(form_from_link(link)) if link else [self.gr.skip() for _ in self.fields]
        text = "The settings of the link are in the fields." if link else ""
        return (entry.id if entry else "", player.result(entry), *fields, text)


_QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
