"""intensity.py against the paper, written out in loops, and against cases whose answer is known."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from enhance_a_video.errors import SettingsError, TokenLayoutError
from enhance_a_video.intensity import (
    cross_frame_intensity,
    cross_frame_mass,
    site_mass,
    spread_sites,
    temporal_attention_map,
    token_mass,
)


def paper_attention(query, key, num_frames, scale=None):
    """A[b, h, s, t, t'] in float64, one site at a time."""
    B, H, L, D = query.shape
    T, S = num_frames, L // num_frames
    q, k = query.double(), key.double()
    attention = torch.zeros(B, H, S, T, T, dtype=torch.float64)
    for b in range(B):
        for h in range(H):
            for s in range(S):
                for t in range(T):
                    row = [q[b, h, t * S + s] @ k[b, h, u * S + s] * (scale or D**-0.5) for u in range(T)]
                    attention[b, h, s, t] = torch.stack(row).softmax(0)
    return attention


def paper_intensity(query, key, num_frames, scale=None):
    """Eq. 3-5: off-diagonal sum over T(T-1), mean over sites and heads; (B,) float64."""
    attention, T = paper_attention(query, key, num_frames, scale), num_frames
    off_diagonal = torch.zeros(attention.shape[:3], dtype=torch.float64)
    for t in range(T):
        for u in range(T):
            if t != u:
                off_diagonal += attention[..., t, u]
    return off_diagonal.mean((1, 2)) / (T * (T - 1))


def qk(B, H, T, S, D, seed=0, dtype=torch.float32):
    make = torch.Generator().manual_seed(seed)
    return (torch.randn(B, T * S, H, D, generator=make).to(dtype).transpose(1, 2) for _ in "qk")


shapes = {
    "B": st.integers(1, 2),
    "H": st.integers(1, 3),
    "T": st.integers(2, 5),
    "S": st.integers(1, 5),
    "D": st.sampled_from([1, 2, 8]),
    "seed": st.integers(0, 999),
}


@given(**shapes, scale=st.sampled_from([None, 0.1, 1.5]), contiguous=st.booleans())
@settings(max_examples=40, deadline=None)
def test_equals_the_paper(B, H, T, S, D, seed, scale, contiguous):
    q, k = qk(B, H, T, S, D, seed)
    q, k = (q.contiguous(), k.contiguous()) if contiguous else (q, k)
    expected = paper_attention(q, k, T, scale)
    intensity = cross_frame_intensity(q, k, T, sites=None, scale=scale)
    assert intensity.shape == (B,) and intensity.dtype == torch.float32
    torch.testing.assert_close(intensity, paper_intensity(q, k, T, scale).float(), rtol=1e-5, atol=1e-6)
    by_site = 1 - expected.diagonal(dim1=-2, dim2=-1).mean((1, 3))
    torch.testing.assert_close(site_mass(q, k, T, sites=None, scale=scale), by_site.float(), rtol=1e-5, atol=1e-6)
    attention = temporal_attention_map(q, k, T, sites=None, scale=scale)
    torch.testing.assert_close(attention, expected.mean((1, 2)).float(), rtol=1e-5, atol=1e-6)


@given(**shapes, n=st.integers(1, 5), contiguous=st.booleans())
@settings(max_examples=40, deadline=None)
def test_sampled_is_the_paper_at_the_chosen_sites(B, H, T, S, D, seed, n, contiguous):
    q, k = qk(B, H, T, S, D, seed)
    q, k = (q.contiguous(), k.contiguous()) if contiguous else (q, k)
    by_head = 1 - paper_attention(q, k, T).diagonal(dim1=-2, dim2=-1).mean(-1)  # (B, H, S)
    chosen = spread_sites(n, S, H) if n < S else torch.arange(S)[:, None].expand(S, H)
    expected = by_head.gather(2, chosen.T[None].expand(B, -1, -1)).mean(1)  # (B, n)
    torch.testing.assert_close(site_mass(q, k, T, sites=n), expected.float(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(cross_frame_mass(q, k, T, sites=n), expected.mean(1).float(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("sites", [None, 4, 12, 1000])
def test_one_frame_has_nothing_to_attend_to(sites):
    q, k = qk(2, 3, 1, 12, 8)
    assert torch.equal(cross_frame_mass(q, k, 1, sites=sites), torch.zeros(2))
    assert torch.equal(cross_frame_intensity(q, k, 1, sites=sites), torch.zeros(2))
    assert torch.equal(temporal_attention_map(q, k, 1, sites=sites), torch.ones(2, 1, 1))


@pytest.mark.parametrize("sites", [None, 7])
def test_planted_cases(sites):
    T, S, D = 5, 12, 16

    def mass(q, k):
        return cross_frame_mass(q, k, T, sites=sites).item()

    frame = torch.randn(1, 2, 1, S, D, generator=torch.Generator().manual_seed(0))
    static = frame.expand(1, 2, T, S, D).flatten(2, 3)  # every frame the same: nothing distinguishes them
    assert mass(static, static) == pytest.approx((T - 1) / T)

    flat = 40 * torch.eye(T, D)[None, None, :, None].expand(1, 2, T, S, D).flatten(2, 3)  # flat frames, unrelated
    assert mass(flat, flat) == pytest.approx(0, abs=1e-6)  # one-hot on itself
    next_frame = flat.unflatten(2, (T, S)).roll(1, 2).flatten(2, 3)
    assert mass(flat, next_frame) == pytest.approx(1)  # one-hot on another

    uniform = torch.zeros(1, 2, T * S, D)
    assert mass(uniform, static) == pytest.approx((T - 1) / T)
    assert cross_frame_intensity(uniform, static, T, sites=sites).item() == pytest.approx(1 / T)


def test_reading_tokens_as_sites_by_frames_is_another_answer():
    """The mistake of a known wrapper: its "frames" are neighbouring pixels. Shapes alone do not catch it."""
    T, S, D = 6, 6, 16
    flat = 40 * torch.eye(T, D)[None, None, :, None].expand(1, 1, T, S, D)
    right, wrong = flat.flatten(2, 3), flat.transpose(2, 3).flatten(2, 3)
    assert cross_frame_mass(right, right, T).item() == pytest.approx(0, abs=1e-6)
    assert cross_frame_mass(wrong, wrong, T).item() == pytest.approx((T - 1) / T)


@pytest.mark.parametrize("sites", [None, 9])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_fp32(dtype, sites):
    q, k = qk(2, 3, 5, 20, 64, dtype=dtype)
    single = cross_frame_mass(q.float(), k.float(), 5, sites=sites)
    assert torch.equal(cross_frame_mass(q, k, 5, sites=sites), single)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(cross_frame_mass(q, k, 5, sites=sites), single)
    if sites is None:
        exact = paper_intensity(q, k, 5) * 4
        torch.testing.assert_close(single.double(), exact, rtol=1e-5, atol=0)


def test_all_sites_sampled_is_exact():
    q, k = qk(1, 4, 5, 30, 8)
    exact = site_mass(q, k, 5, sites=None)
    for sites in (30, 31, 10_000):
        assert torch.equal(site_mass(q, k, 5, sites=sites), exact)


@pytest.mark.parametrize("sites", [None, 9])
@pytest.mark.parametrize("function", [site_mass, temporal_attention_map])
def test_pieces_do_not_matter(function, sites, monkeypatch):
    q, k = qk(2, 3, 5, 70, 8)
    whole = function(q, k, 5, sites=sites)
    monkeypatch.setattr("enhance_a_video.intensity._PIECE_BYTES", 1)  # 3 sites in a piece
    torch.testing.assert_close(function(q, k, 5, sites=sites), whole, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("sites", [None, 9])
def test_a_sample_does_not_depend_on_its_batch(sites):
    q, k = qk(3, 2, 4, 20, 8)
    together = cross_frame_mass(q, k, 4, sites=sites)
    alone = torch.cat([cross_frame_mass(q[i : i + 1], k[i : i + 1], 4, sites=sites) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("sites", [None, 9])
def test_views_of_any_strides(sites):
    """Head-major, token-major, the video part of a joint sequence, a fused QKV: the same numbers."""
    q, k = qk(2, 3, 4, 20, 8)
    expected = site_mass(q, k, 4, sites=sites)
    joint = torch.randn(2, 3, 7 + 80 + 5, 8)
    joint[:, :, 7:-5] = q
    fused = torch.stack([q, k, k]).permute(1, 3, 0, 2, 4).contiguous()  # (B, L, 3, H, D)
    for view in (q.contiguous(), joint[:, :, 7:-5], fused[:, :, 0].transpose(1, 2)):
        torch.testing.assert_close(site_mass(view, k, 4, sites=sites), expected)


@given(S=st.integers(2, 5000), n=st.integers(1, 300), H=st.integers(1, 40))
@settings(max_examples=100, deadline=None)
def test_spread_sites_takes_one_site_of_each_stretch(S, n, H):
    n = min(n, S)
    chosen = spread_sites(n, S, H)
    start = torch.arange(n + 1) * S // n
    assert chosen.shape == (n, H)
    assert (chosen >= start[:-1, None]).all() and (chosen < start[1:, None]).all()


def test_spread_sites_cover_every_column():
    """64 of 512 sites, a stride of 8: on a grid 32 wide a plain stride would see 4 columns of 32."""
    assert spread_sites(64, 512, 1).remainder(32).unique().numel() >= 24
    assert spread_sites(64, 512, 12).remainder(32).unique().numel() == 32


@pytest.mark.parametrize("sites", [None, 9])
@pytest.mark.parametrize("function", [cross_frame_mass, temporal_attention_map])
def test_compiles_to_one_graph(function, sites):
    def layer(x, weight):  # inside something bigger
        q, k = (x @ weight).unflatten(-1, (2, 3, 8)).transpose(1, 3).unbind(2)
        gain = 1.4 * function(q, k, 4, sites=sites).reshape(2, -1).mean(1)
        return x * gain.clamp(min=1)[:, None, None]

    torch.manual_seed(0)
    x, weight = torch.randn(2, 80, 16), torch.randn(16, 48)
    compiled = torch.compile(layer, fullgraph=True, dynamic=False, backend="aot_eager")
    torch.testing.assert_close(compiled(x, weight), layer(x, weight))


def test_compiles_with_inductor():
    q, k = qk(2, 3, 4, 20, 8)
    compiled = torch.compile(cross_frame_mass, fullgraph=True, dynamic=False)
    torch.testing.assert_close(compiled(q, k, 4, sites=9), cross_frame_mass(q, k, 4, sites=9))


class LargestTensor(TorchDispatchMode):
    """Bytes of the largest storage made by any operation inside."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in (t for t in torch.utils._pytree.tree_leaves(out) if isinstance(t, torch.Tensor)):
            self.made[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return out

    def __enter__(self):
        self.made = {}
        return super().__enter__()


@pytest.mark.parametrize("contiguous", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sites", [None, 64])
def test_memory_is_bounded_by_pieces(sites, dtype, contiguous):
    q, k = qk(1, 4, 9, 1600, 32, dtype=dtype)
    q, k = (q.contiguous(), k.contiguous()) if contiguous else (q, k)
    inputs = {x.untyped_storage().data_ptr() for x in (q, k)}
    with LargestTensor() as seen:
        cross_frame_mass(q, k, 9, sites=sites)
    largest = max(size for pointer, size in seen.made.items() if pointer not in inputs)
    assert largest <= max(2**20, math.ceil(q.numel() * 4 / 32))


@pytest.mark.parametrize(
    "shape_q, shape_k, frames, message",
    [
        ((1, 2, 10, 4), (1, 2, 10, 4), 3, "10 tokens do not divide into 3 frames"),
        ((1, 2, 10, 4), (1, 2, 10, 4), 0, "into 0 frames"),
        ((1, 2, 10, 4), (1, 2, 10, 4), -2, "into -2 frames"),
        ((1, 2, 0, 4), (1, 2, 0, 4), 2, "0 tokens"),
        ((1, 2, 10, 4), (1, 2, 12, 4), 2, r"\(1, 2, 12, 4\)"),
        ((2, 10, 4), (2, 10, 4), 2, r"\(B, H, T·S, D\)"),
    ],
)
def test_a_wrong_layout_is_reported(shape_q, shape_k, frames, message):
    for function in (cross_frame_intensity, cross_frame_mass, site_mass, temporal_attention_map):
        with pytest.raises(TokenLayoutError, match=message):
            function(torch.zeros(shape_q), torch.zeros(shape_k), frames)


def test_no_sites_is_reported():
    with pytest.raises(SettingsError, match="sites=0"):
        cross_frame_mass(torch.zeros(1, 1, 4, 2), torch.zeros(1, 1, 4, 2), 2, sites=0)


@pytest.mark.parametrize("sites", [5, 40])
def test_the_mass_of_tokens_is_what_that_of_sites_is_the_mean_of(sites):
    query, key = torch.randn(2, 2, 3, 4 * sites, 8, generator=torch.Generator().manual_seed(0))
    found = token_mass(query, key, 4)  # (B, H, T, S)
    torch.testing.assert_close(found.mean((1, 2)), site_mass(query, key, 4, sites=None))
    q, k = (x.unflatten(2, (4, sites)).transpose(2, 3).double() for x in (query, key))  # (B, H, S, T, D)
    attention = (q @ k.transpose(-1, -2) / 8**0.5).softmax(-1)
    expected = 1 - attention.diagonal(dim1=-2, dim2=-1).transpose(2, 3)
    torch.testing.assert_close(found.double(), expected, atol=1e-6, rtol=1e-5)
    divided = token_mass(query.unflatten(2, (4, sites)), key.unflatten(2, (4, sites)), 4)
    torch.testing.assert_close(divided, found)


@pytest.mark.parametrize(
    ("query", "frames"), [(None, 2), ("x", 2), (torch.zeros(1, 1, 8, 4), None), (torch.zeros(1, 1, 8, 4), "x")]
)
def test_arguments_of_another_type_are_refused_by_name(query, frames):
    with pytest.raises(TokenLayoutError, match=r"query|num_frames"):
        cross_frame_mass(query, query, frames)
