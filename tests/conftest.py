"""A tiny real WanPipeline folder, random weights: everything users run, at a size that takes a second."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a test never uses the network
os.environ.setdefault("MPLBACKEND", "Agg")

import json
import signal
import tempfile

import pytest
import torch

os.environ.setdefault("ENHANCE_A_VIDEO_HOME", tempfile.mkdtemp(prefix="enhance-a-video-home-"))  # not the user's own

WORDS = [
    "a",
    "red",
    "blue",
    "green",
    "ball",
    "square",
    "moves",
    "left",
    "right",
    "over",
    "the",
    "grass",
    "sky",
]
TINY_DEFAULTS = {
    "steps": 3,
    "guidance": 4.0,
    "frames": 9,
    "height": 32,
    "width": 32,
    "fps": 8,
    "prompt": "a red ball moves right over the grass",
}


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def tiny_tokenizer(folder):
    """A word-level tokenizer, built offline."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: n for n, word in enumerate(["<pad>", "</s>", "<unk>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=512,
    )
    fast.save_pretrained(folder)
    return fast


def tiny_wan(layers: int = 2):
    """A WanTransformer3DModel of two layers whose attention matters (no weight is zero)."""
    from diffusers import WanTransformer3DModel

    torch.manual_seed(0)
    model = WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4,
        text_dim=16, freq_dim=16, ffn_dim=32, num_layers=layers, cross_attn_norm=True, rope_max_seq_len=64,
    )  # fmt: skip
    for parameter in model.parameters():
        if parameter.numel() > 1 and not parameter.detach().any():
            parameter.data.normal_(0, 0.05)
    return model.eval()


def tiny_pipeline(folder):
    """A WanPipeline with a small UMT5 encoder and a small AutoencoderKLWan, saved to `folder`."""
    from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline
    from transformers import UMT5Config, UMT5EncoderModel

    tokenizer = tiny_tokenizer(folder / "tokenizer_source")
    torch.manual_seed(0)
    encoder = UMT5EncoderModel(
        UMT5Config(vocab_size=len(tokenizer), d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    )
    vae = AutoencoderKLWan(
        base_dim=8, z_dim=4, dim_mult=[1, 2, 4], num_res_blocks=1, temperal_downsample=[True, True],
        patch_size=2, in_channels=12, out_channels=12, latents_mean=[0.0] * 4, latents_std=[1.0] * 4,
        scale_factor_spatial=8, scale_factor_temporal=4,
    )  # fmt: skip
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    pipe = WanPipeline(
        tokenizer=tokenizer,
        text_encoder=encoder.eval(),
        vae=vae.eval(),
        scheduler=scheduler,
        transformer=tiny_wan(),
    )
    pipe.save_pretrained(folder / "model")
    (folder / "model" / "defaults.json").write_text(json.dumps(TINY_DEFAULTS))
    return folder / "model"


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    """The folder of a tiny WanPipeline, as `--model FOLDER` takes it."""
    return tiny_pipeline(tmp_path_factory.mktemp("tiny_wan"))


@pytest.fixture
def tiny_pipe(tiny_folder):
    """A fresh tiny WanPipeline."""
    from diffusers import WanPipeline

    pipe = WanPipeline.from_pretrained(tiny_folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def hearing():
    """Arguments of Popen for a process that hears Ctrl+C, also where the tests run in the background and ignore it."""
    return {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)} if os.name == "posix" else {}


@pytest.fixture
def command(capsys):
    """Runs a command line in this process; gives its exit code, stdout and stderr."""
    from enhance_a_video import cli

    def call(*words) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            cli.main([str(word) for word in words])
        printed = capsys.readouterr()
        return int(left.value.code or 0), printed.out, printed.err

    return call


@pytest.fixture
def run(command, monkeypatch, tmp_path):
    """The same in an empty folder, and in a terminal of 100 columns."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    return command


@pytest.fixture(scope="module")
def chromium():
    """A headless browser; tests that use it are marked with `chromium.needs_chromium`."""
    from chromium import launched

    with launched() as browser:
        yield browser
