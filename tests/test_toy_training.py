"""The training of the embedded model: small runs of the real code."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from enhance_a_video.toy import world
from enhance_a_video.toy.muon import Muon, MuonAdamW, orthogonalised
from enhance_a_video.toy.recipe import Training, VaeTraining, build_text_encoder, build_tokenizer, embed
from enhance_a_video.toy.train_vae import train_vae

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
    from enhance_a_video.toy import train_vae as module

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


def test_the_tokenizer_knows_every_word_of_the_world():
    tokenizer = build_tokenizer()
    for index in range(100):
        rng = np.random.default_rng(index)
        ids = tokenizer(world.caption(world.sample_scene(rng), rng)).input_ids
        assert tokenizer.unk_token_id not in ids
        assert ids[-1] == tokenizer.eos_token_id and len(ids) <= 32
    assert tokenizer.unk_token_id in tokenizer("a purple zebra").input_ids


def test_the_transformer_learns_one_batch_and_resumes(tmp_path):
    """The real trainer on a few latents: the loss falls, and a saved state goes on with the same losses."""
    from enhance_a_video.toy.train_transformer import Trainer

    _clips(4, tmp_path)
    recipe = replace(Training(), clips=4, batch=4, steps=20, warmup=1, captions=1, lengths=(32,), compile=False)
    trainer = Trainer(tmp_path, recipe)
    losses, reading, binding = zip(
        *[(trainer.step(s), trainer.read_loss.item(), trainer.binding_loss.item()) for s in range(8)], strict=True
    )
    for falls in (losses, reading, binding):
        assert np.isfinite(falls).all() and falls[-1] < falls[0]
    state = trainer.state()
    again = Trainer(tmp_path, recipe)
    again.load(torch.load(_saved(state, tmp_path), weights_only=True))
    assert [trainer.step(8), trainer.step(9)] == [again.step(8), again.step(9)]


def test_a_run_can_start_from_the_packaged_model(tmp_path):
    from enhance_a_video.toy import model_folder
    from enhance_a_video.toy.train import start_from
    from enhance_a_video.toy.train_transformer import Trainer

    start_from(model_folder(), tmp_path)
    _clips(2, tmp_path)
    recipe = replace(Training(), clips=2, batch=2, captions=1, lengths=(32,), compile=False)
    trained = Trainer(tmp_path, recipe).loss(0)
    (tmp_path / "start.pt").unlink()
    fresh = Trainer(tmp_path, recipe).loss(0)
    assert trained < fresh  # on noise for clips, but it knows how to predict the noise
    assert (tmp_path / "vae.pt").exists() and (tmp_path / "decoder.pt").exists()


def _clips(count, folder):
    """Latents of noise with the truth of the first training clips, as encode_clips saves them."""
    from enhance_a_video.toy.train_transformer import training_scene, truth_map

    clean = torch.randn(count, 24, 9, 8, 8, generator=torch.Generator().manual_seed(0)).half()
    scenes = [training_scene(i) for i in range(count)]
    truth = torch.stack([torch.from_numpy(truth_map(s, world.render(s)[1].masks)) for s in scenes])
    state = {"latents": clean, "mean": torch.zeros(24), "std": torch.ones(24), "truth": truth}
    torch.save(state, folder / "latents.pt")


def test_the_truth_map_says_what_is_where():
    from enhance_a_video.toy.train_transformer import truth_map

    still = world.Thing("green", "box", "striped", "right", radius=10, start=(40.0, 24.0), reach=0.0)
    scene = world.Scene((still,), "sea")
    masks = world.render(scene)[1].masks
    found = truth_map(scene, masks).reshape(9, 4, 4, 89) / 255
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
