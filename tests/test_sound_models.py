"""`generate` and `compare` with a model that makes sound: WAV files."""

import json
import wave
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from chromium import needs_chromium
from tiny_models.sound_pipelines import PIPELINES, RATE, save_sound_pipeline

from enhance_a_video import enhance
from enhance_a_video.errors import SettingsError, VideoFileError
from enhance_a_video.generation import again, pipelines, video
from enhance_a_video.generation.credentials import read_credentials
from enhance_a_video.generation.media.wav import wav_bytes, wav_comment

PROMPT = "a red ball moves right over the grass"


@pytest.fixture(scope="session")
def models(tmp_path_factory, tiny_folder):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_folder / "tokenizer")
    folder = tmp_path_factory.mktemp("sound")
    return {name: save_sound_pipeline(name, folder / name, tokenizer) for name in PIPELINES}


@pytest.fixture(scope="session")
def stable_audio(models):
    return models["stable_audio"]


def samples(path):
    with wave.open(str(path)) as file:
        assert (file.getframerate(), file.getsampwidth()) == (RATE, 2)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, file.getnchannels())


@pytest.mark.parametrize("name", PIPELINES)
def test_same_seed_same_sound_and_odds_change_it(models, name):
    pipe = pipelines.load(models[name])
    plain, again, other = (pipelines.generate(pipe, PROMPT, seed=seed, seconds=1) for seed in (1, 1, 2))
    with enhance(pipe, odds={"near:32": 2.0}) as handle:
        near = pipelines.generate(pipe, PROMPT, seed=1, seconds=1)
    assert plain.dtype == np.float32 and plain.shape == (RATE, 1 if name == "longcat_audio" else 2)
    assert np.array_equal(plain, again) and np.array_equal(plain, pipelines.generate(pipe, PROMPT, seed=1, seconds=1))
    assert not np.allclose(plain, other, atol=1e-3) and not np.allclose(plain, near, atol=1e-4)
    assert 0 < handle.summary().mass.mean() < 1 and pipelines.sound_rate(pipe) == RATE
    both = pipelines.generate(pipe, [PROMPT, PROMPT], seed=[1, 2], seconds=1)
    np.testing.assert_allclose(both, [plain, other], atol=1e-4)


@pytest.mark.parametrize("name", ["ace_step", "longcat_audio"])
def test_generate_with_the_others(run, models, name):
    code, _, err = run("generate", "-m", models[name], "-p", PROMPT, "--seconds", 1, "-o", "a.wav")
    assert code == 0, err
    assert again.record_in("a.wav")["options"] == {"seconds": 1} and len(samples("a.wav")) == RATE


def test_generate_writes_a_sound_that_says_how_to_make_it_again(run, stable_audio):
    words = ("generate", "-m", stable_audio, "-p", PROMPT, "--seed", 3, "--seconds", 1.5)
    code, out, err = run(*words, "--axis", "near:32=2", "-o", "a.wav")
    assert code == 0, err
    assert "Written: a.wav" in out and "1.50 s, 2 channels, 8000 Hz" in out and "fps" not in out
    assert read_credentials("a.wav").valid
    record = again.record_in("a.wav")
    assert record["samples"] == 1.5 * RATE and record["settings"]["odds"] == {"near:32": 2}
    again_words = again.command_for(record, "b.wav").split("'")
    assert again_words[1] == PROMPT  # the rest has no spaces
    code, _, err = run(*again_words[0].split()[1:], PROMPT, *again_words[2].split())
    assert code == 0, err
    for other in (("--no-enhance",), ("--axis", "near:32=1.2")):
        assert run(*words, *other, "-o", f"{other[0]}.wav")[0] == 0
        assert not np.array_equal(samples("a.wav"), samples(f"{other[0]}.wav"))
    assert np.array_equal(samples("a.wav"), samples("b.wav"))
    assert samples("a.wav").shape == (1.5 * RATE, 2) and samples("a.wav").std() > 0
    code, out, err = run("inspect", "a.wav", "--json")
    found = json.loads(out)
    assert code == 0 and found["record"]["seed"] == 3 and found["watermark"] is None and found["warnings"] == []


def test_a_changed_sound_does_not_hold(run, stable_audio):
    assert run("generate", "-m", stable_audio, "-p", PROMPT, "--seconds", 1, "-o", "a.wav")[0] == 0
    data = bytearray(Path("a.wav").read_bytes())
    data[2000] ^= 1
    Path("a.wav").write_bytes(data)
    code, out, _ = run("inspect", "a.wav")
    assert code == 1 and "NOT VALID" in out and "Make it again" in out


def test_compare_of_sounds(run, stable_audio):
    words = ("compare", "-m", stable_audio, "-p", PROMPT, "--axis", "near:32=2", "--seeds", 2, "--seconds", 1)
    code, out, err = run(*words, "-o", "c")
    assert code == 0, err
    own = {"baseline.wav", "enhanced.wav"}
    assert {path.name for path in Path("c").iterdir()} == {*own, "report.html", "seed-1"}
    assert {path.name for path in Path("c/seed-1").iterdir()} == own
    page = Path("c/report.html").read_text()
    assert page.count('src="data:audio/wav') == 4 and "<video" not in page and "Mean of" not in page
    assert "Nothing is measured of sound" in " ".join(out.split())
    assert not np.array_equal(samples("c/baseline.wav"), samples("c/enhanced.wav"))
    code, out, _ = run(*words, "-o", "c", "--json", "--force")
    data = json.loads(out)
    assert code == 0 and data["differences"] == {"with Enhance-A-Video": {}} and "side_by_side" not in data["pairs"][0]


@needs_chromium
def test_a_browser_plays_what_was_compared(run, stable_audio, chromium):
    words = ("compare", "-m", stable_audio, "-p", PROMPT, "--axis", "near:32=2", "--seconds", 1, "-o", "c")
    assert run(*words)[0] == 0
    page, errors = chromium.new_page(viewport={"width": 390, "height": 844}), []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(Path("c/report.html").resolve().as_uri())
    page.wait_for_function("[...document.querySelectorAll('audio')].every((one) => one.duration === 1)")
    assert page.evaluate("document.querySelectorAll('audio').length") == 2 and errors == []
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.close()


def test_what_is_refused_before_weights_are_read(run, stable_audio, tiny_folder, monkeypatch):
    import diffusers

    monkeypatch.setattr(diffusers.DiffusionPipeline, "from_pretrained", lambda *_, **__: pytest.fail("weights read"))
    Path("p.txt").write_text(PROMPT)
    sound = ("generate", "-m", stable_audio, "-p", PROMPT, "-o", "a.wav")
    for words, says in {
        (*sound[:-1], "a.mp4"): "makes sounds, which are written as .wav; got 'a.mp4'. Name it a.wav",
        (*sound[:-1], "a.flac"): "sound as .wav",
        (*sound, "--frames", 9): "makes sounds, which have no frames. Give the length with --seconds",
        (*sound, "--width", 64, "--height", 64): "have no height, width",
        (*sound, "--fps", 8): "have no fps",
        (*sound, "--guider", "slg"): "have no guider",
        (*sound, "--seconds", 0): "--seconds=0",
        (*sound, "--watermark"): "--watermark is for pictures and videos",
        (*sound, "--axis", "space=2"): "no axis 'space'",
        ("compare", "-m", stable_audio, "-p", PROMPT, "--against", "slg"): "have no guider",
        ("compare", "-m", stable_audio, "-p", PROMPT, "--frames", 1): "have no frames",
        ("batch", "p.txt", "-m", stable_audio, "-o", "b"): "takes models that make videos",
        ("generate", "-m", tiny_folder, "-p", PROMPT, "-o", "a.wav"): "makes videos, which are written as .mp4",
        ("generate", "-m", tiny_folder, "-p", PROMPT, "-o", "a.mp4", "--seconds", 2): "which have no seconds",
    }.items():
        code, _, err = run(*words)
        assert code == 2 and says in " ".join(err.split()), (words, err)
    assert not Path("a.wav").exists()


def test_a_library_that_is_missing_is_named_before_weights_are_read(stable_audio, tmp_path):
    if find_spec("torchsde"):
        pytest.skip("torchsde is installed")
    index = json.loads((stable_audio / "model_index.json").read_text())
    index["scheduler"] = ["diffusers", "CosineDPMSolverMultistepScheduler"]
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(SettingsError, match="needs torchsde, which is not installed: pip install torchsde"):
        pipelines.load(tmp_path)


def test_from_python(stable_audio):
    pipe = pipelines.load(stable_audio)
    steps = []
    one = pipelines.generate(pipe, PROMPT, seed=1, seconds=1, progress=lambda one: steps.append((one.done, one.total)))
    assert one.shape == (RATE, 2) and steps == [(1, 3), (2, 3), (3, 3)]
    with pytest.raises(SettingsError, match="longer than the model maximum"):
        pipelines.generate(pipe, PROMPT, seconds=3)
    with pytest.raises(SettingsError, match="have no frames"):
        pipelines.generate(pipe, PROMPT, frames=3)


def test_a_loud_and_a_short_sound_are_reported():
    notes = []
    made = pipelines._sounds(np.full((1, 2, 100), 1.5), 100, 2.0, notes.append)
    assert made.shape == (1, 100, 2) and made.max() == 1
    assert "100.00% of its samples" in notes[0] and notes[1] == "seconds: 2 requested, 1.00 made."
    with pytest.raises(SettingsError, match="not numbers"):
        pipelines._sounds(np.full((1, 2, 100), np.nan), 100, None, notes.append)
    with pytest.raises(SettingsError, match="without a single sample"):
        pipelines._sounds(np.zeros((1, 2, 0)), 100, None, notes.append)


def test_wav_holds_samples_and_comment(tmp_path):
    sound = np.array([[0.0, 1.0], [-1.0, 0.5], [2.0, -2.0]], np.float32)
    video.write_clip(tmp_path / "a.wav", sound, RATE, comment="ä, odd")
    assert samples(tmp_path / "a.wav").tolist() == [[0, 32767], [-32767, 16384], [32767, -32767]]
    assert wav_comment(tmp_path / "a.wav") == "ä, odd"
    (tmp_path / "b.wav").write_bytes(wav_bytes(sound, RATE))
    assert wav_comment(tmp_path / "b.wav") == ""
    (tmp_path / "c.wav").write_bytes(b"RIFF, but cut")
    with pytest.raises(VideoFileError, match="no WAV file"):
        wav_comment(tmp_path / "c.wav")
    with pytest.raises(SettingsError, match="samples, channels"):
        video.write_clip(tmp_path / "d.wav", np.zeros((2, 64, 64, 3)), RATE)
