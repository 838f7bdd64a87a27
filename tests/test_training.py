"""The training of the embedded model: small runs of the real code."""

import json
import subprocess
import sys
from dataclasses import replace

import diffusers
import numpy as np
import pytest
import torch

from enhance_a_video import enhance
from enhance_a_video.embedded import world
from enhance_a_video.generation import pipelines
from training.architectures import ARCHITECTURES, TEMPORAL, WAN
from training.codecs import CLIPS, FRAMES, PUPPET_CLIPS
from training.muon import Muon, MuonAdamW, orthogonalised
from training.recipe import Training, VaeTraining, build_text_encoder, build_tokenizer, embed, text_states
from training.train_vae import train_vae

HERE = [
    pytest.param(
        name, marks=[pytest.mark.skipif(not hasattr(diffusers, "MotifVideoPipeline"), reason="older diffusers")]
    )
    if name == "joint"
    else name
    for name in ARCHITECTURES
]
TINY = VaeTraining(image_steps=3, steps=1, batch=1, frames=5, things_from=2, decay=2)


def quiet(message: str, done: int, total: int) -> None:
    pass


def test_orthogonalised_has_singular_values_near_one():
    for shape in ((8, 32), (32, 8), (16, 16)):
        values = torch.linalg.svdvals(orthogonalised(torch.randn(shape, generator=torch.Generator().manual_seed(0))))
        assert values.min() > 0.5 and values.max() < 1.4


def test_muon_refuses_vectors():
    with pytest.raises(ValueError, match="two and more dimensions"):
        Muon([torch.nn.Parameter(torch.zeros(3))])


def test_muon_and_adamw_share_the_parameters_and_learn():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.Tanh(), torch.nn.Linear(16, 2))
    optimiser = MuonAdamW(model, 0.05, 0.01, keep=("2.",))
    counts = [len(g["params"]) for o in (optimiser.muon, optimiser.adam) for g in o.param_groups]
    assert counts == [1, 3]
    x = torch.randn(64, 6)
    y = torch.stack([x[:, 0] * x[:, 1], x[:, 2].abs()], 1)
    losses = []
    for _ in range(150):
        loss = (model(x) - y).square().mean()
        loss.backward()
        optimiser.step(1.0)
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


def test_a_resumed_vae_run_is_the_same_run(tmp_path, monkeypatch):
    """Stop after two steps, go on: the weights are those of an uninterrupted run."""
    from training import train_vae as module

    whole, halves = tmp_path / "whole", tmp_path / "halves"
    for folder in (whole, halves):
        folder.mkdir()
    train_vae(whole, TINY, quiet)
    monkeypatch.setattr(module, "CHECKPOINT_EVERY", 2)
    real, calls = module.vae_loss, []

    def dies_in_the_third_step(*arguments, **named):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments, **named)

    monkeypatch.setattr(module, "vae_loss", dies_in_the_third_step)
    with pytest.raises(KeyboardInterrupt):
        train_vae(halves, TINY, quiet)
    train_vae(halves, TINY, quiet)
    a, b = (torch.load(folder / "vae.pt", weights_only=True)["model"] for folder in (whole, halves))
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert len(calls) == 5  # two steps, the one that died, and the last two
    rows = [json.loads(line) for line in (halves / "vae-log.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 4 and np.isfinite(rows[-1]["loss"])


def test_text_states_are_those_of_the_pipeline(tiny_pipe):
    prompts = ["A red ball rises in the desert.", "A striped blue box rises in the desert and a red ball sinks."]
    ours = embed(tiny_pipe.tokenizer, tiny_pipe.text_encoder, prompts, 32)
    theirs = tiny_pipe.encode_prompt(prompts, do_classifier_free_guidance=False, max_sequence_length=32)[0]
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_the_tokenizer_has_every_word_of_the_world():
    tokenizer = build_tokenizer()
    for index in range(100):
        rng = np.random.default_rng(index)
        ids = tokenizer(world.caption(world.sample_scene(rng), rng)).input_ids
        assert tokenizer.unk_token_id not in ids
        assert ids[-1] == tokenizer.eos_token_id and len(ids) <= 32
    assert tokenizer.unk_token_id in tokenizer("a purple zebra").input_ids


@pytest.mark.parametrize("name", HERE)
def test_the_transformer_learns_one_batch_and_resumes(tmp_path, name):
    """The real trainer on a few latents: the loss falls, and a saved state goes on with the same losses."""
    from training.train_transformer import Trainer, load_clips

    architecture = ARCHITECTURES[name]
    architecture = replace(architecture, lengths=architecture.lengths[:1], codec=short(architecture.codec))
    _clips(4, tmp_path, architecture.codec)
    recipe = replace(Training(), clips=4, batch=4, steps=20, warmup=1, captions=1, compile=False)
    clips = load_clips(tmp_path, recipe, architecture)
    trainer = Trainer(clips, recipe, architecture)

    def losses():  # of one batch
        with torch.no_grad():
            return [trainer.loss(0).item(), trainer.read_loss.item(), trainer.binding_loss.item()]

    before = losses()
    for step in range(16):
        trainer.step(step)
    assert all(0 < after < first for after, first in zip(losses(), before, strict=True))
    state = trainer.state()
    again = Trainer(clips, recipe, architecture)
    again.load(torch.load(_saved(state, tmp_path), weights_only=True))
    assert [trainer.step(16), trainer.step(17)] == [again.step(16), again.step(17)]


def test_a_run_can_start_from_the_packaged_model(tmp_path):
    from enhance_a_video.embedded import model_folder
    from training.train import start_from
    from training.train_transformer import Trainer, encode_clips, load_clips

    start_from(model_folder(), tmp_path, WAN)
    recipe = replace(Training(), clips=4, batch=4, captions=1, compile=False)
    encode_clips(tmp_path, recipe, quiet)
    clips = load_clips(tmp_path, recipe)
    with torch.no_grad():
        assert Trainer(clips, recipe, start=tmp_path / "start.pt").loss(0) < 0.5 < Trainer(clips, recipe).loss(0)
    assert (tmp_path / "vae.pt").exists() and (tmp_path / "decoder.pt").exists()


def test_another_architecture_takes_only_the_parts_that_fit(tmp_path):
    from enhance_a_video.embedded import model_folder
    from training.train import start_from

    start_from(model_folder(), tmp_path, TEMPORAL)
    assert not (tmp_path / "vae.pt").exists()
    kept = torch.load(tmp_path / "start.pt", weights_only=True)
    assert kept and all(key.startswith("text_encoder.") for key in kept)


@pytest.mark.parametrize("name", HERE)
def test_what_is_exported_generates_and_was_trained_on_what_its_pipeline_computes(tmp_path, name):
    """Export untrained weights, load the folder, generate, and predict the first step again as training does."""
    from training.train import export

    architecture = ARCHITECTURES[name]
    torch.manual_seed(0)
    _clips(2, tmp_path, architecture.codec)
    modules = architecture.modules(len(build_tokenizer(architecture.codec.world)))
    torch.save({"average": modules.state_dict()}, tmp_path / "transformer.pt")
    torch.save({"model": architecture.codec.build().state_dict()}, tmp_path / "decoder.pt")
    export(tmp_path, architecture, Training(), architecture.codec.recipe, tmp_path / "model")

    pipe = pipelines.load(tmp_path / "model", device="cpu", dtype="float32")
    calls = []
    pipe.transformer.register_forward_hook(
        lambda m, args, kwargs, out: calls.append((kwargs, out[0])), with_kwargs=True
    )
    prompt, size = architecture.codec.world.prompt, architecture.codec.world.size
    with enhance(pipe, observe_only=True) as handle:
        frames = pipelines.generate(pipe, prompt, seed=1, steps=2)
    assert frames.shape == (architecture.frames, size, size, 3)
    assert (handle.summary().num_frames == architecture.codec.latent[1]).all()

    kwargs, theirs = calls[0]
    mixed = kwargs["hidden_states"][-1:, : architecture.codec.latent[0]]  # without what Motif-Video appends
    states, words = text_states(pipe.tokenizer, pipe.text_encoder, [prompt], architecture.lengths[0])
    prompted = torch.tensor([True])
    with torch.no_grad():
        ours = architecture.predict(pipe.transformer, mixed, kwargs["timestep"][-1:], states, words, prompted)
    theirs = theirs[-1:, : ours.shape[1]]
    assert (ours - theirs).abs().max() < 1e-4 * theirs.abs().max()


def test_the_first_step_of_each_schedule_is_pure_noise():
    clean, noise = torch.zeros(1, 1, 1, 1, 1), torch.ones(1, 1, 1, 1, 1)
    for architecture in ARCHITECTURES.values():
        mixed, timestep, _ = architecture.noisy(clean, noise, torch.ones(1))
        assert mixed.item() == 1 and timestep.item() >= 999
        mixed, timestep, _ = architecture.noisy(clean, noise, torch.zeros(1))
        assert mixed.item() < 0.02 and timestep.item() == 0


def test_the_velocity_leads_back_to_the_clean_latents():
    """One scheduler step from anywhere with the true velocity gives the clean latents."""
    from training.architectures import ddim

    clean, noise = torch.randn(2, 1, 4, 2, 2, 2, generator=torch.Generator().manual_seed(0))
    for u in (0.2, 0.7, 0.999):
        mixed, timestep, velocity = WAN.noisy(clean, noise, torch.full((1,), u))
        assert torch.allclose(mixed - timestep / 1000 * velocity, clean, atol=1e-5)
        mixed, timestep, velocity = TEMPORAL.noisy(clean, noise, torch.full((1,), u))
        scheduler = ddim()
        scheduler.set_timesteps(1000)
        found = scheduler.step(velocity, int(timestep), mixed).pred_original_sample
        assert torch.allclose(found, clean, atol=1e-4)


@pytest.mark.parametrize("codec", [CLIPS, FRAMES, PUPPET_CLIPS])
def test_a_codec_has_the_shape_of_its_latents(codec):
    size = codec.world.size
    video = torch.zeros(1, 3, codec.world.frames, size, size)[:, :, :: codec.every]
    vae = codec.build()
    with torch.no_grad():
        latents = codec.encode(vae, video)
        assert latents.shape == (1, *codec.latent) and codec.decode(vae, latents).shape == video.shape
    assert codec.cover(torch.zeros(2, codec.world.frames, 64, 64)).shape[1] == codec.latent[1]
    assert codec.latent[2] == size // 16 * codec.patch


def test_a_normalised_frame_vae_gives_latents_of_variance_one_and_the_same_pictures(tmp_path):
    from training.train import _normalised_vae

    torch.manual_seed(0)
    vae, mean, std = FRAMES.build().eval(), torch.tensor([0.5, -1.0, 0.0, 2.0]), torch.tensor([0.5, 1.0, 2.0, 4.0])
    torch.save({"model": vae.state_dict()}, tmp_path / "decoder.pt")
    torch.save({"mean": mean, "std": std}, tmp_path / "latents.pt")
    normalised = _normalised_vae(tmp_path, TEMPORAL).eval()
    video = torch.randn(1, 3, 2, 64, 64)
    with torch.no_grad():
        before, after = FRAMES.encode(vae, video), FRAMES.encode(normalised, video)
        expected = (before - mean.view(1, -1, 1, 1, 1)) / std.view(1, -1, 1, 1, 1)
        assert torch.allclose(after, expected, atol=1e-5)
        assert torch.allclose(FRAMES.decode(vae, before), FRAMES.decode(normalised, after), atol=1e-5)
        frame = video[:, :, 0]
        ratio = vae.encode(frame).latent_dist.std / normalised.encode(frame).latent_dist.std
        assert torch.allclose(ratio.mean((0, 2, 3)), std, rtol=1e-3)


def short(codec):
    """A codec that keeps one latent frame of a clip of the puppet world: its clips have four times the tokens."""
    if codec is not PUPPET_CLIPS:
        return codec
    return replace(codec, latent=(codec.latent[0], 1, *codec.latent[2:]), cover=lambda masks: masks[:, :1])


def _clips(count, folder, codec=CLIPS):
    """Latents of noise with the truth of the first training clips, as encode_clips saves them."""
    clean = torch.randn(count, *codec.latent, generator=torch.Generator().manual_seed(0)).half()
    world = codec.world
    scenes = [world.scene(i) for i in range(count)]
    truth = torch.stack([torch.from_numpy(world.truth_map(s, world.render(s)[1], codec.cover)) for s in scenes])
    channels = codec.latent[0]
    state = {"latents": clean, "mean": torch.zeros(channels), "std": torch.ones(channels), "truth": truth}
    torch.save(state, folder / "latents.pt")


def test_the_truth_map_has_what_is_where():
    from training.worlds import shape_map

    still = world.Thing("green", "box", "striped", "right", radius=10, start=(40.0, 24.0), reach=0.0)
    scene = world.Scene((still,), "sea")
    truth = world.render(scene)[1]
    masks = truth.masks
    found = shape_map(scene, truth, CLIPS.cover).reshape(9, 4, 4, 89) / 255
    assert abs(found[..., :80].sum() * 16 - masks[0, 0].sum() * 9) < 0.01 * found[..., :80].sum() * 16  # 4 x 4 pixels
    parts = found[..., 16:32]  # of boxes
    assert parts.sum() == found[..., :80].sum() and found[:, :, 0].max() == 0  # nothing else, nothing at the left
    picture = parts.reshape(9, 4, 4, 4, 4).transpose(0, 1, 3, 2, 4).reshape(9, 16, 16)  # rows and columns of 4 pixels
    expected = masks[0, 0].reshape(16, 4, 16, 4).mean((1, 3))
    assert abs(picture - expected).max() < 0.01
    green = list(world.COLOURS).index("green")
    assert found[..., 80 + green].max() > 0.5 and abs(found[..., 80 + green] - found[..., 88]).max() == 0


def _saved(state, folder):
    torch.save(state, folder / "state.pt")
    return folder / "state.pt"


def test_the_text_encoder_ignores_padding():
    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    encoder = build_text_encoder(len(tokenizer)).eval()
    short = embed(tokenizer, encoder, ["A red ball rises in the desert."], 32)
    beside = embed(tokenizer, encoder, ["A red ball rises in the desert.", "A " + "red " * 20 + "ball"], 32)[:1]
    assert torch.allclose(short, beside, atol=1e-5)
    assert not short[0, 9:].any()


def test_training_by_the_clock_draws_trains_and_exports(tmp_path):
    """All of train_gpu.py on the CPU, for a few seconds: it ends with a model that generates."""
    command = [sys.executable, "-m", "training.train_gpu", "--model", "wan", "--device", "cpu"]
    command += ["--vae-seconds", "2", "--seconds", "2", "--clips", "12", "--workers", "1", "--batch", "2"]
    subprocess.run([*command, "--no-compile", "--out", str(tmp_path)], check=True, capture_output=True, timeout=300)
    logs = {
        name: [json.loads(line) for line in (tmp_path / f"{name}-log.jsonl").read_text().splitlines()]
        for name in ("encoding", "fidelity", "transformer")
    }
    assert logs["encoding"][0]["clips"] == 12 and np.isfinite(logs["fidelity"][0]["psnr"]) and logs["transformer"]
    pipe = pipelines.load(tmp_path / "model", device="cpu", dtype="float32")
    assert pipelines.generate(pipe, WAN.codec.world.prompt, seed=1, steps=1).shape == (33, 64, 64, 3)


def test_a_training_on_a_gpu_goes_back_to_the_last_finite_weights():
    from training.muon import MuonAdamW
    from training.train_gpu import Kept

    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 2))
    optimiser = MuonAdamW(model, 0.02, 2e-3)
    kept = Kept(model, optimiser)

    def step(value: float) -> None:
        (model(torch.randn(3, 4)).square().mean() * value).backward()
        optimiser.step(1.0)

    with pytest.raises(SystemExit, match="from the start"):
        kept.restore()
    step(1.0)
    kept.keep()
    weights = [p.detach().clone() for p in model.parameters()]
    step(float("nan"))
    assert not all(p.isfinite().all() for p in model.parameters())
    kept.restore()
    assert all(torch.equal(p, weight) for p, weight in zip(model.parameters(), weights, strict=True))
    step(1.0)
    assert all(p.isfinite().all() for p in model.parameters())
