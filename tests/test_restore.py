"""Finished videos restored: windows, noise, where a schedule is entered, detail given back, and the command's files."""

import json
from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from enhance_a_video.embedded import world
from enhance_a_video.errors import OutputExistsError, SettingsError, UnsupportedModelError, VideoFileError
from enhance_a_video.generation import pipelines, video
from enhance_a_video.generation.media import scan
from enhance_a_video.generation.restore import (
    Restoring,
    detail,
    engine,
    latents,
    light,
    restore_file,
    restore_frames,
    windows,
)
from enhance_a_video.lab.metrics.clip import Clip
from enhance_a_video.lab.metrics.no_reference import warping_error
from tests import media_files


@pytest.fixture(scope="module")
def pipe():
    return pipelines.load()


@pytest.fixture(scope="module")
def clean():
    """A clip of the embedded world, uint8 (33, 64, 64, 3)."""
    return world.render(world.held_out_scene(700))[0]


@pytest.fixture(scope="module")
def flickering(clean):
    light = 1 + 0.07 * np.random.default_rng(5).standard_normal(len(clean))
    return np.rint(np.clip(clean * light[:, None, None, None], 0, 255)).astype(np.uint8)


def psnr(a, b):
    return -10 * np.log10(np.mean((a / 255.0 - b / 255.0) ** 2))


def unsteadiness(frames):
    return float(warping_error(Clip(frames.astype(np.float32) / 255)).mean())


# ------------------------------------------------------------------------------------------------------- windows


@given(st.integers(1, 400), st.integers(2, 81), st.integers(0, 80), st.sampled_from([1, 4, 8]))
def test_windows_cover_the_clip(frames, length, overlap, step):
    length = max(1, length // step) * step + 1  # as a model's clips are
    overlap = min(overlap, length - 1)
    spans = windows.windows(frames, length, overlap, step)
    covered = np.zeros(frames, int)
    for span in spans:
        assert span.first % step == 0 and len(span) <= length
        covered[span.first : span.last] += 1
    assert covered.min() >= 1 and spans[-1].last == frames
    starts = [span.first for span in spans]
    assert starts == sorted(set(starts))
    for one, other in pairwise(spans):
        assert one.last - other.first >= min(overlap, length - step)


@given(st.integers(1, 60), st.integers(2, 17), st.integers(0, 16))
def test_windows_that_agree_are_blended_without_a_seam(frames, length, overlap):
    clip = np.random.default_rng(frames).random((frames, 2, 2, 3), np.float32)
    spans = windows.windows(frames, length, min(overlap, length - 1))
    found = np.stack(list(windows.blended(spans, (clip[s.first : s.last] for s in spans))))
    np.testing.assert_allclose(found, clip, atol=1e-6)


def test_windows_that_differ_are_blended_in_steps_smaller_than_the_difference():
    spans = windows.windows(50, 20, 8)
    clips = [np.full((len(span), 1, 1, 3), float(number % 2)) for number, span in enumerate(spans)]
    values = np.stack(list(windows.blended(spans, clips)))[:, 0, 0, 0]
    assert np.abs(np.diff(values)).max() < 0.2


def test_padding_mirrors_and_is_trimmed_back():
    clip = np.arange(5 * 3 * 4 * 3, dtype=np.uint8).reshape(5, 3, 4, 3)
    whole = windows.padded(clip, 13, 8, 16)
    assert whole.shape == (13, 8, 16, 3)
    np.testing.assert_array_equal(whole[:5, :3, :4], clip)
    np.testing.assert_array_equal(whole[5, :3, :4], clip[3])  # there and back again
    np.testing.assert_array_equal(whole[8, :3, :4], clip[0])
    assert (windows.padded(clip[:1], 5, 3, 4) == clip[0]).all()


# --------------------------------------------------------------------------------------------- noise and schedules


def test_windows_agree_on_the_noise_of_a_frame():
    one, other = latents.noise_of_frames(3, 0, (4, 9, 2, 2)), latents.noise_of_frames(3, 6, (4, 9, 2, 2))
    assert torch.equal(one[:, 6:], other[:, :3])
    assert not torch.equal(one[:, 0], one[:, 1])
    assert not torch.equal(one, latents.noise_of_frames(4, 0, (4, 9, 2, 2)))
    assert abs(latents.noise_of_frames(0, 0, (16, 8, 32, 32)).std().item() - 1) < 0.01


def test_a_schedule_entered_late_is_the_end_of_the_whole_one(pipe):
    scheduler = pipe.scheduler
    scheduler.set_timesteps(20)
    whole, sigmas = scheduler.timesteps.clone(), scheduler.sigmas.clone()
    starts = []
    with latents.late(scheduler, 5, starts.append):
        scheduler.set_timesteps(20)
        assert torch.equal(scheduler.timesteps, whole[15:]) and torch.equal(scheduler.sigmas, sigmas[15:])
    scheduler.set_timesteps(20)
    assert torch.equal(scheduler.timesteps, whole), "nothing is left behind"
    (start,) = starts
    assert (start.steps, start.total) == (5, 20)
    assert start.noise == pytest.approx(float(sigmas[15])) and start.signal + start.noise == pytest.approx(1)


def test_the_latents_are_those_that_the_model_makes(pipe, clean):
    """Encoded here and decoded by the pipeline's own last lines: the clip again, as well as the VAE can."""
    x, config = latents.encoded(pipe, clean), pipe.vae.config
    assert x.shape == (1, 24, 9, 8, 8) and 0.5 < x.std() < 2, "of the size of the noise that they are mixed with"
    shape = (1, -1, 1, 1, 1)
    raw = x * torch.tensor(config.latents_std).view(shape) + torch.tensor(config.latents_mean).view(shape)
    with torch.inference_mode():
        back = pipe.vae.decode(raw).sample[0].permute(1, 2, 3, 0)
    assert psnr(((back + 1) * 127.5).clamp(0, 255).numpy(), clean) > 25


def test_little_noise_keeps_the_clip_and_all_of_it_keeps_nothing(pipe, clean):
    little = restore_frames(pipe, clean, Restoring(noise=0.05, keep_detail=False))
    everything = restore_frames(pipe, clean, Restoring(noise=1.0, steps=6, keep_detail=False))
    assert psnr(little, clean) > 26 > 20 > psnr(everything, clean)


def test_a_pipeline_whose_latents_are_unknown_is_refused(pipe, clean):
    class SomeOtherPipeline(type(pipe)):
        pass

    other = SomeOtherPipeline(**pipe.components)
    with pytest.raises(UnsupportedModelError, match=r"latents of SomeOtherPipeline.*WanPipeline"):
        restore_frames(other, clean)


@pytest.mark.parametrize(
    "wrong",
    [
        {"noise": 0, "even_light": False},
        {"noise": 1.5},
        {"noise": float("nan")},
        {"steps": 0},
        {"overlap": -1},
        {"seed": -1},
    ],
)
def test_bad_settings_are_refused(wrong):
    with pytest.raises(SettingsError):
        Restoring(**wrong)


# ------------------------------------------------------------------------------------------------ what comes out


def test_the_help_and_the_page_name_the_default(command):
    from pathlib import Path

    page = (Path(__file__).parent.parent / "docs" / "guide" / "restore.md").read_text(encoding="utf-8")
    assert f"{engine.NOISE:g}, the default" in page
    assert f"{engine.NOISE:g} by default" in " ".join(command("restore", "--help")[1].replace("│", " ").split())


def test_planted_flicker_goes_and_the_clean_clip_comes_nearer(pipe, clean, flickering):
    restored = restore_frames(pipe, flickering, Restoring(noise=0.25))
    assert unsteadiness(restored) < 0.3 * unsteadiness(flickering)
    assert psnr(restored, clean) > psnr(flickering, clean) + 2


def test_detail_that_the_vae_loses_is_given_back(pipe, clean):
    with_it, without = (restore_frames(pipe, clean, Restoring(noise=0.1, keep_detail=keep)) for keep in (True, False))
    assert psnr(with_it, clean) > psnr(without, clean) + 4


def test_flicker_is_not_given_back_with_the_detail(clean):
    """A restored clip that is blurred and steady, a source that is sharp and alternates in brightness."""
    sharp = clean.astype(np.float32) / 255
    still = np.repeat(sharp[:1], 33, 0)
    source = np.clip(still + 0.05 * np.where(np.arange(33) % 2, 1, -1)[:, None, None, None], 0, 1).astype(np.float32)
    blurred = np.repeat(sharp[:1].mean((1, 2), keepdims=True), 33, 0) * np.ones_like(still)
    back = detail.steady_detail(blurred, source)[4:-4]
    assert np.abs(np.diff(back, axis=0)).max() < 0.01 < np.abs(np.diff(source, axis=0)).max()
    assert np.abs(back - still[4:-4]).mean() < 0.01


def test_wavering_light_is_made_even_and_other_light_is_left(clean, flickering):
    even = light.lit(flickering, light.gains_of(flickering))
    assert psnr(even, clean) > psnr(flickering, clean) + 5
    assert np.abs(light.gains_of(clean) - 1).max() < 0.02
    fade = clean * np.linspace(1, 0.3, len(clean))[:, None, None, None]
    inner = light.gains_of(np.rint(fade).astype(np.uint8))[8:-8]
    assert np.abs(inner - 1).max() < 0.05, "a fade is no flicker"


def test_without_noise_the_light_alone_is_made_even_and_no_model_is_needed(clean, flickering):
    even = restore_frames(None, flickering, Restoring(noise=0))
    np.testing.assert_array_equal(even, light.lit(flickering, light.gains_of(flickering)))
    assert psnr(even, clean) > psnr(flickering, clean) + 5


def test_light_is_not_mixed_across_a_cut(clean):
    dark = 255 - clean[:, ::-1]
    gains = light.gains_of(np.concatenate([clean, dark]))
    np.testing.assert_allclose(gains, np.concatenate([light.gains_of(clean), light.gains_of(dark)]))


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_short_clips_have_their_light(clean, frames):
    assert light.gains_of(clean[:frames]).shape == (frames, 3)
    assert np.isfinite(light.gains_of(np.zeros_like(clean[:frames]))).all()


def test_colours_are_those_of_the_source(clean):
    source = clean.astype(np.float32) / 255
    tinted = np.clip(source * 0.8 + np.array([0.1, 0, 0], np.float32), 0, 1)
    matched = detail.colour_matched(tinted, source)
    assert np.abs(matched.mean((0, 1, 2)) - source.mean((0, 1, 2))).max() < 0.02


def test_a_long_clip_has_no_seams(pipe, flickering):
    """Where windows begin and end the clip changes no more than elsewhere."""
    long = np.concatenate([flickering, flickering[::-1], flickering])
    restored = restore_frames(pipe, long, Restoring(noise=0.25))
    assert restored.shape == long.shape
    errors = warping_error(Clip(restored.astype(np.float32) / 255))
    at = sorted({edge for span in windows.windows(99, 33, 8, 4) for edge in (span.first, span.last)} - {0, 99})
    assert np.mean([errors[edge - 1] for edge in at]) < 2 * errors.mean()


@pytest.mark.parametrize("shape", [(1, 64, 64), (2, 30, 50), (5, 17, 64), (34, 24, 18)])
def test_any_length_and_size_comes_back_as_it_was(pipe, shape):
    clip = media_files.moving(*shape)
    assert restore_frames(pipe, clip, Restoring(noise=0.1)).shape == clip.shape


# ---------------------------------------------------------------------------------------------------------- files


def with_sound(path, frames, codec="aac", rate=12, form="mp4", **tags):
    """A file with a tone beside its frames."""
    with av.open(str(path), "w", format=form) as container:
        container.metadata.update(tags)
        picture = container.add_stream("libx264", rate=rate, options={"crf": "10"})
        picture.height, picture.width, picture.pix_fmt = *frames.shape[1:3], "yuv420p"
        tone = container.add_stream(codec, rate=16_000, layout="mono")
        for array in frames:
            container.mux(picture.encode(av.VideoFrame.from_ndarray(array, format="rgb24")))
        container.mux(picture.encode())
        kind = tone.codec_context.format.name
        resampler = av.AudioResampler(format=kind, layout="mono", rate=16_000)
        samples = np.sin(np.arange(16_000 * len(frames) // rate) / 10).astype(np.float32)[None]
        sound = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        sound.sample_rate, sound.pts, sound.time_base = 16_000, 0, Fraction(1, 16_000)
        fifo = av.AudioFifo()
        for ready in resampler.resample(sound):
            fifo.write(ready)
        while (piece := fifo.read(1024)) is not None:
            container.mux(tone.encode(piece))
        container.mux(tone.encode())
    return path


def streams(path):
    with av.open(str(path)) as container:
        return {s.type: s.codec_context.name for s in container.streams}, dict(container.metadata)


def sound_of(path):
    with av.open(str(path)) as container:
        return np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])


def test_sound_rate_length_size_and_title_are_kept(tmp_path, flickering):
    source = with_sound(tmp_path / "in.mp4", flickering, title="My film")
    made = restore_file(source, tmp_path / "out.mp4", Restoring(noise=0.1))
    one, other = scan(source), scan(tmp_path / "out.mp4")
    assert (other.frames, other.height, other.width, other.fps) == (one.frames, one.height, one.width, one.fps)
    kinds, tags = streams(tmp_path / "out.mp4")
    assert kinds == {"video": "h264", "audio": "aac"} and tags["title"] == "My film"
    np.testing.assert_array_equal(sound_of(source), sound_of(tmp_path / "out.mp4"))
    record = json.loads(video.read_comment(tmp_path / "out.mp4"))
    assert record["restored"]["file"] == "in.mp4" and record["restored"]["sha256"] == one.sha256
    assert record["starts"]["step"] == 19 and record["starts"]["of"] == 20 and record["noise"] == 0.1
    assert record["settings"]["odds"] == 2 and record["enhancement"]["mean_gain"] > 1
    assert made.made == 1 and not list(tmp_path.glob(".*")), "nothing is left of the windows"


def test_sound_that_mp4_cannot_hold_is_encoded_again_and_reported(tmp_path, flickering):
    source = with_sound(tmp_path / "in.mkv", flickering[:12], "pcm_s16le", form="matroska")
    notes = []
    restore_file(source, tmp_path / "out.mp4", Restoring(noise=0.05), notice=notes.append)
    assert streams(tmp_path / "out.mp4")[0] == {"video": "h264", "audio": "aac"}
    assert any("pcm_s16le" in note and "AAC" in note for note in notes)
    assert sound_of(tmp_path / "out.mp4").std() == pytest.approx(sound_of(source).std() / 32768, rel=0.1)


def test_uneven_times_are_kept(tmp_path, flickering):
    times = list(np.cumsum([0, 40, 40, 120, 40, 200, 40, 40, 40, 80]))
    source = media_files.write(tmp_path / "in.mkv", flickering[:10], times=times)
    restore_file(source, tmp_path / "out.mp4", Restoring(noise=0.05))
    assert scan(tmp_path / "out.mp4").times == pytest.approx([one / 1000 for one in times], abs=1e-3)


def test_a_phones_clip_is_written_upright(tmp_path):
    clip = media_files.moving(6, 32, 48)
    source = media_files.turned(media_files.write(tmp_path / "in.mp4", clip), (0, 1, -1, 0))
    restore_file(source, tmp_path / "out.mp4", Restoring(noise=0.05))
    shown, _ = video.read_video(source)
    back, _ = video.read_video(tmp_path / "out.mp4")
    assert shown.shape == back.shape == (6, 48, 32, 3)


def test_a_stopped_run_goes_on_and_comes_out_the_same(tmp_path, flickering):
    long = np.concatenate([flickering, flickering[::-1]])
    source = video.write_video(tmp_path / "in.mp4", long, 12)
    how = Restoring(noise=0.1)

    def stop(event):
        if "2 of" in event.doing:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        restore_file(source, tmp_path / "a.mp4", how, progress=stop)
    assert not (tmp_path / "a.mp4").exists()
    made = restore_file(source, tmp_path / "a.mp4", how)
    assert len(made.plan.spans) == 3 and made.made == 2
    restore_file(source, tmp_path / "b.mp4", how)
    np.testing.assert_array_equal(video.read_video(tmp_path / "a.mp4")[0], video.read_video(tmp_path / "b.mp4")[0])


def test_what_another_job_left_is_not_used(tmp_path, flickering):
    long = np.concatenate([flickering, flickering[::-1]])
    source = video.write_video(tmp_path / "in.mp4", long, 12)

    def stop(event):
        if "2 of" in event.doing:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        restore_file(source, tmp_path / "a.mp4", Restoring(noise=0.1), progress=stop)
    notes = []
    made = restore_file(source, tmp_path / "a.mp4", Restoring(noise=0.1, seed=1), notice=notes.append)
    assert made.made == len(made.plan.spans) and any("thrown away" in note for note in notes)


# --------------------------------------------------------------------------------- sizes that are not the model's


@pytest.mark.parametrize(
    ("size", "word"),
    [((64, 64), None), ((48, 64), None), ((96, 80), None), ((256, 256), "larger"), ((32, 32), "smaller")],
)
def test_a_size_that_is_not_the_models_is_named_with_a_way_out(pipe, size, word):
    text = engine.size_note(pipe, *size)
    if word is None:
        assert text is None
        return
    assert f"{size[1]}x{size[0]}, much {word}" in text and "(64x64)" in text
    assert "--model" in text and "scale=64:64" in text and "--noise 0" in text


def test_a_model_without_defaults_of_its_own_has_its_pipelines_size(pipe, monkeypatch):
    monkeypatch.setattr(engine.pipelines, "defaults", lambda pipe: {"fps": 8})
    assert "(832x480)" in engine.size_note(pipe, 1080, 1920) and engine.size_note(pipe, 832, 480) is None


def test_the_command_names_the_size_before_the_work_and_in_json(command, tmp_path):
    media_files.write(tmp_path / "in.mp4", media_files.moving(5, 96, 128))
    code, printed, err = command("restore", tmp_path / "in.mp4", "--steps", 2, "--json")
    (text,) = json.loads(printed)["warnings"]
    assert code == 0 and "128x96, much larger than the model's own clips (64x64)" in text and text[:40] in err


def test_the_command_without_noise_runs_no_model(command, tmp_path, flickering, monkeypatch):
    source = with_sound(tmp_path / "in.mp4", flickering)
    monkeypatch.setattr("enhance_a_video.generation.restore.files.opened", None)  # would raise if it were called
    code, printed, _ = command("restore", source, "--noise", 0, "--odds", 3, "--model", "nowhere", "--json")
    record = json.loads(printed)
    assert code == 0 and "starts" not in record and "model" not in record and record["settings"] is None
    assert record["warnings"] == ["--odds and --model have no effect with --noise 0: no model runs."]
    assert unsteadiness(video.read_video(tmp_path / "in-restored.mp4")[0]) < 0.5 * unsteadiness(flickering)
    assert streams(tmp_path / "in-restored.mp4")[0] == {"video": "h264", "audio": "aac"}
    code, printed, _ = command("inspect", tmp_path / "in-restored.mp4", "--json")
    found = json.loads(printed)
    assert found["command_to_make_it"].endswith("in.mp4 --noise 0 --out in-restored.mp4")
    assert found["credentials"]["sources"] == ["algorithmicallyEnhanced"]
    assert command("restore", source, "--noise", 0, "--no-even-light", "-o", tmp_path / "x.mp4")[0] == 2


def test_files_that_cannot_be_restored_are_refused_before_the_work(tmp_path, clean):
    source = video.write_video(tmp_path / "in.mp4", clean[:5], 12)
    with pytest.raises(SettingsError, match="another name"):
        restore_file(source, source, force=True)
    (tmp_path / "there.mp4").write_bytes(b"")
    with pytest.raises(OutputExistsError):
        restore_file(source, tmp_path / "there.mp4")
    with pytest.raises(SettingsError, match=r"\.mp4"):
        restore_file(source, tmp_path / "out.avi")
    video.write_png(tmp_path / "x.png", clean[0])
    with pytest.raises(SettingsError, match="single picture"):
        restore_file(tmp_path / "x.png", tmp_path / "out.mp4")
    for name, data in {"empty.mp4": b"", "text.mp4": b"no video at all", "cut.mp4": source.read_bytes()[:2000]}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(VideoFileError):
            restore_file(tmp_path / name, tmp_path / "out.mp4")
    with pytest.raises(VideoFileError):
        restore_file(tmp_path / "nothing.mp4", tmp_path / "out.mp4")
    assert not (tmp_path / "out.mp4").exists()
