"""The towers against open_clip's own forward, and every option against a plain rewriting."""

from __future__ import annotations

import open_clip
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from models import tiny_backbone

from zerodefect.backbones.clip import CLIP, END_OF_TEXT, CLIPConfig, TextTower, tokenize
from zerodefect.backbones.transformer import (
    CORRELATIONS,
    Append,
    Apply,
    Insert,
    OtherAttention,
    Overwrite,
    Remove,
    SecondStream,
    same_depth,
)

TEXTS = ["a photo of a screw.", "damaged metal nut with a scratch", "x"]


def randomised_open_clip(name: str) -> torch.nn.Module:
    """open_clip's model with every parameter away from its special initial value."""
    torch.manual_seed(0)
    model = open_clip.create_model(name).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() < 2:
                parameter.add_(0.05 * torch.randn_like(parameter))
    return model


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["ViT-B-16", "ViT-B-32-quickgelu", pytest.param("ViT-L-14-336", marks=pytest.mark.soak)],
)
def test_equal_to_open_clip(name):
    theirs = randomised_open_clip(name)
    config = CLIPConfig.from_open_clip(open_clip.get_model_config(name))
    ours = CLIP(config).eval()
    ours.load_openai_state(theirs.state_dict())
    side = config.vision.image_size
    pixels = torch.randn(2, 3, side, side)
    ids = tokenize(TEXTS)
    with torch.no_grad():
        torch.testing.assert_close(
            ours.visual(pixels), theirs.encode_image(pixels), atol=1e-5, rtol=0
        )
        torch.testing.assert_close(ours.text(ids), theirs.encode_text(ids), atol=1e-5, rtol=0)
        alone = torch.cat([ours.visual(p[None]) for p in pixels])
        torch.testing.assert_close(alone, ours.visual(pixels), atol=1e-5, rtol=0)
        alone = torch.cat([ours.text(i[None]) for i in ids])
        torch.testing.assert_close(alone, ours.text(ids), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["ViT-B-16", "ViT-L-14-336", "ViT-B-16-plus-240"])
def test_configuration_survives_the_trip_to_open_clip_and_back(name):
    config = CLIPConfig.from_open_clip(open_clip.get_model_config(name))
    assert CLIPConfig.from_open_clip(config.to_open_clip()) == config


@pytest.mark.parametrize("name", ["RN50", "ViT-B-16-SigLIP", "coca_ViT-B-32"])
def test_foreign_architectures_are_refused(name):
    with pytest.raises(ValueError, match="not a plain ViT CLIP"):
        CLIPConfig.from_open_clip(open_clip.get_model_config(name))


def test_tokens_equal_open_clips():
    theirs = open_clip.get_tokenizer("ViT-B-16")(TEXTS)
    assert torch.equal(tokenize(TEXTS), theirs)


def test_a_text_too_long_is_an_error_that_quotes_it():
    with pytest.raises(ValueError, match="but the text tower reads 77"):
        tokenize(["screw " * 100])


@pytest.fixture(scope="module")
def clip():
    return tiny_backbone().clip


@pytest.fixture(scope="module")
def pixels():
    return torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def plain_blocks(clip, x, rule=None, start=1):
    """The block loop once more, with torch's own attention and no options."""
    streams, second, middles = [], [], []
    w = None
    for number, block in enumerate(clip.visual.transformer.blocks, start=1):
        h, heads, width = block.ln_1(x), block.attn.heads, x.shape[-1]
        attended, _ = F.multi_head_attention_forward(
            h.transpose(0, 1), h.transpose(0, 1), h.transpose(0, 1), width, heads,
            block.attn.in_proj_weight, block.attn.in_proj_bias, None, None, False, 0.0,
            block.attn.out_proj.weight, block.attn.out_proj.bias,
        )  # fmt: skip
        if rule and number >= start:
            q, k, v = (
                z.reshape(*z.shape[:2], heads, -1).transpose(1, 2)
                for z in F.linear(h, block.attn.in_proj_weight, block.attn.in_proj_bias).chunk(
                    3, -1
                )
            )
            out = rule(q, k, v, h).transpose(1, 2).flatten(2)
            w = (x if w is None else w) + block.attn.out_proj(out)
        x = x + attended.transpose(0, 1)
        middles.append(x)
        x = x + block.mlp(block.ln_2(x))
        streams.append(x)
        second.append(x if w is None else w)
    return streams, second, middles


def naive_attention(a, b, v, scale=None):
    scale = a.shape[-1] ** -0.5 if scale is None else scale
    return (a @ b.transpose(-1, -2) * scale).softmax(-1) @ v


NAIVE_RULES = {
    "qk": lambda q, k, v, h: naive_attention(q, k, v),
    "vv": lambda q, k, v, h: naive_attention(v, v, v),
    "qq": lambda q, k, v, h: naive_attention(q, q, v),
    "kk": lambda q, k, v, h: naive_attention(k, k, v),
    "qq+kk": lambda q, k, v, h: naive_attention(q, q, v) + naive_attention(k, k, v),
    "qq+kk+vv": lambda q, k, v, h: sum(naive_attention(z, z, v) for z in (q, k, v)),
    "concat": lambda q, k, v, h: naive_attention(
        torch.cat([q, k, v], -1), torch.cat([q, k, v], -1), v
    ),
    "echo": lambda q, k, v, h: (
        sum(
            naive_attention(
                F.normalize(z, dim=-1),
                F.normalize(z, dim=-1),
                v,
                q.shape[-1] ** -0.5 * h.norm(dim=-1).mean(-1)[:, None, None, None],
            )
            for z in (q, k, v)
        )
        / 3
    ),
}


def test_true_taps_and_middles(clip, pixels):
    tokens = clip.visual.embed(pixels)
    states = clip.visual.encode(tokens, taps=(1, 3))
    streams, _, middles = plain_blocks(clip, clip.visual.ln_pre(tokens))
    assert sorted(states.taps) == [1, 3]
    for number in (1, 3):
        torch.testing.assert_close(states.taps[number], streams[number - 1], atol=1e-5, rtol=0)
        torch.testing.assert_close(states.middle[number], middles[number - 1], atol=1e-5, rtol=0)
    torch.testing.assert_close(states.tokens, streams[-1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("rule", sorted(CORRELATIONS))
@pytest.mark.parametrize("start", [1, 2])
def test_second_stream(clip, pixels, rule, start):
    tokens = clip.visual.embed(pixels)
    states = clip.visual.encode(tokens, taps=(1, 2, 3), second=SecondStream(rule, start))
    streams, second, _ = plain_blocks(clip, clip.visual.ln_pre(tokens), NAIVE_RULES[rule], start)
    torch.testing.assert_close(states.tokens, streams[-1], atol=1e-5, rtol=0)
    torch.testing.assert_close(states.second, second[-1], atol=1e-5, rtol=0)
    for number in (1, 2, 3):
        torch.testing.assert_close(
            states.second_taps[number], second[number - 1], atol=1e-5, rtol=0
        )
    joined = states.class_and_second()
    assert torch.equal(joined[:, 0], states.tokens[:, 0])
    assert torch.equal(joined[:, 1:], states.second[:, 1:])


def test_a_rule_of_ones_own(clip, pixels):
    tokens = clip.visual.embed(pixels)
    own = clip.visual.encode(tokens, second=SecondStream(lambda q, k, v, h: v))
    _, second, _ = plain_blocks(clip, clip.visual.ln_pre(tokens), lambda q, k, v, h: v)
    torch.testing.assert_close(own.second, second[-1], atol=1e-5, rtol=0)


def test_class_only_equals_the_full_run(clip, pixels):
    tokens = clip.visual.embed(pixels)
    short = clip.visual.encode(tokens, class_only=True).tokens
    assert short.shape == (3, 1, 64)
    torch.testing.assert_close(short, clip.visual.encode(tokens).tokens[:, :1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("rule", ["vv", "qq+kk+vv"])
@pytest.mark.parametrize("taps", [(), (2,), (1, 3)])
def test_class_only_beside_a_second_stream(clip, pixels, rule, taps):
    tokens, second = clip.visual.embed(pixels), SecondStream(rule, start=2)
    short = clip.visual.encode(tokens, second=second, taps=taps, class_only=True)
    full = clip.visual.encode(tokens, second=second, taps=taps)
    assert short.tokens.shape == (3, 1, 64)
    torch.testing.assert_close(short.tokens, full.tokens[:, :1], atol=1e-5, rtol=0)
    assert torch.equal(short.second, full.second)
    for number in taps:
        assert torch.equal(short.second_taps[number], full.second_taps[number])
        assert torch.equal(short.middle[number], full.middle[number])
        ordinary = full.taps[number][:, : short.taps[number].shape[1]]
        torch.testing.assert_close(short.taps[number], ordinary, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("block", "of", "layers", "expected"),
    [(6, 24, 24, 6), (6, 24, 12, 3), (6, 24, 6, 2), (6, 24, 3, 1), (9, 12, 12, 9), (9, 12, 4, 3)],
)
def test_the_same_depth_in_another_tower(block, of, layers, expected):
    assert same_depth(block, of, layers) == expected


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("projection", [True, False])
def test_projection_each_or_not(clip, norm, projection):
    tokens = torch.randn(2, 5, 64)
    expected = F.layer_norm(
        tokens, (64,), clip.visual.ln_post.weight, clip.visual.ln_post.bias, 1e-5
    )
    expected = expected if norm else tokens
    expected = expected @ clip.visual.proj if projection else expected
    torch.testing.assert_close(
        clip.visual.project(tokens, norm=norm, projection=projection), expected
    )


@pytest.mark.parametrize("resize", ["bicubic", "bicubic_antialias", "bilinear"])
@pytest.mark.parametrize("grid", [(8, 8), (5, 12), (20, 9), (1, 1)])
def test_positions_are_resized_as_named(clip, resize, grid):
    positions = clip.visual.positions(grid, resize)
    assert positions.shape == (1 + grid[0] * grid[1], 64)
    stored = clip.visual.positional_embedding
    assert torch.equal(positions[0], stored[0])
    square = stored[1:].reshape(1, 8, 8, 64).permute(0, 3, 1, 2)
    mode = {"bilinear": "bilinear"}.get(resize, "bicubic")
    expected = F.interpolate(square, grid, mode=mode, antialias=resize == "bicubic_antialias")
    expected = expected.permute(0, 2, 3, 1).reshape(-1, 64)
    torch.testing.assert_close(positions[1:], expected, atol=1e-5, rtol=0)


def test_the_two_bicubic_kernels_differ(clip):
    plain = clip.visual.positions((12, 12), "bicubic")
    antialiased = clip.visual.positions((12, 12), "bicubic_antialias")
    assert (plain - antialiased).abs().max() > 1e-3


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 3))
def test_any_size_and_any_batch(rows, columns, batch):
    clip = tiny_backbone().clip
    pixels = torch.randn(batch, 3, 8 * rows, 8 * columns)
    together = clip.visual(pixels)
    assert together.shape == (batch, 64)
    alone = torch.cat([clip.visual(p[None]) for p in pixels])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_a_size_that_patches_do_not_divide_names_the_nearest(clip):
    with pytest.raises(ValueError, match=r"multiples of the patch size 8.*64x104"):
        clip.visual(torch.randn(1, 3, 66, 101))


# --- deep prompts -------------------------------------------------------------------------------


def test_edits_do_what_they_say():
    x = torch.arange(12.0).reshape(1, 6, 2).repeat(2, 1, 1)
    new = torch.full((2, 2), -1.0)
    own = torch.stack([torch.full((1, 2), -1.0), torch.full((1, 2), -2.0)])
    assert torch.equal(Append(new).apply(x), torch.cat([x, new.expand(2, 2, 2)], 1))
    assert torch.equal(Overwrite(new, at=1).apply(x)[:, 3:], x[:, 3:])
    assert torch.equal(Overwrite(new, at=1).apply(x)[0, 1:3], new)
    assert torch.equal(Overwrite(new, at=-2).apply(x)[1, 4:], new)
    assert torch.equal(Insert(own, at=1).apply(x)[:, 1], own[:, 0])
    assert torch.equal(Insert(own, at=1).apply(x)[:, 2:], x[:, 1:])
    assert torch.equal(Remove(1, 2).apply(x), torch.cat([x[:, :1], x[:, 3:]], 1))
    with pytest.raises(ValueError, match="outside a sequence of 6"):
        Overwrite(new, at=5).apply(x)


def test_half_precision_rounding_is_in_the_numbers_and_the_gradient():
    tokens = torch.tensor([[0.1234567, 1.0]], requires_grad=True)
    x = torch.zeros(1, 3, 2)
    rounded = Append(tokens, half=True).apply(x)
    assert rounded.dtype == torch.float32
    assert rounded[0, 3, 0] == torch.tensor(0.1234567).half().float()
    rounded.sum().backward()
    assert tokens.grad is not None


def test_edits_run_before_the_block_they_name(clip, pixels):
    """Append before block 1, overwrite before block 2, as a tower edited by hand does."""
    visual = clip.visual
    tokens = visual.embed(pixels)
    first, second = torch.randn(2, 64), torch.randn(3, 2, 64)
    states = visual.encode(
        tokens, edits={1: [Append(first)], 2: [Overwrite(second, at=-2)], 4: [Remove(-2, 2)]}
    )
    x = torch.cat([visual.ln_pre(tokens), first.expand(3, 2, 64)], 1)
    for number, block in enumerate(visual.transformer.blocks, start=1):
        if number == 2:
            x = torch.cat([x[:, :-2], second], 1)
        h = block.ln_1(x)
        x = x + block.attn.join(naive_attention(*block.attn.project(h)))
        x = x + block.mlp(block.ln_2(x))
    torch.testing.assert_close(states.tokens, x[:, :-2], atol=1e-5, rtol=0)


@pytest.mark.parametrize("start", [1, 3])
def test_another_attention_from_a_block_on_and_a_change_before_one(clip, pixels, start):
    """The stream itself attends by the rule, its MLP stays; taps are read before edits."""
    visual = clip.visual
    tokens = visual.embed(pixels)
    states = visual.encode(
        tokens, taps=(1,), edits={2: [Apply(lambda x: 2 * x)]}, other=OtherAttention("vv", start)
    )
    x = visual.ln_pre(tokens)
    for number, block in enumerate(visual.transformer.blocks, start=1):
        if number == 2:
            torch.testing.assert_close(states.taps[1], x, atol=1e-5, rtol=0)
            x = 2 * x
        q, k, v = block.attn.project(block.ln_1(x))
        x = x + block.attn.join(naive_attention(*((v, v, v) if number >= start else (q, k, v))))
        x = x + block.mlp(block.ln_2(x))
    torch.testing.assert_close(states.tokens, x, atol=2e-5, rtol=0)


def test_gradients_reach_deep_prompts(clip):
    ids = tokenize(TEXTS)
    prompt = torch.nn.Parameter(0.02 * torch.randn(2, 64))
    features = clip.text.encode(
        clip.text.embed(ids), TextTower.ends(ids), edits={2: [Overwrite(prompt, at=1, half=True)]}
    )
    features.sum().backward()
    assert prompt.grad.abs().sum() > 0


def test_options_that_exclude_each_other(clip, pixels):
    tokens = clip.visual.embed(pixels)
    with pytest.raises(ValueError, match=r"tower has 1\.\.3"):
        clip.visual.encode(tokens, taps=(4,))
    with pytest.raises(ValueError, match=r"tower has 1\.\.3"):
        clip.visual.encode(tokens, second=SecondStream("vv", start=0))
    with pytest.raises(ValueError, match="unknown rule"):
        clip.visual.encode(tokens, second=SecondStream("vq"))
    with pytest.raises(ValueError, match="not defined"):
        clip.visual.encode(tokens, second=SecondStream(), edits={1: [Remove(1, 1)]})
    with pytest.raises(ValueError, match="another attention goes with neither"):
        clip.visual.encode(tokens, second=SecondStream(), other=OtherAttention())
    with pytest.raises(ValueError, match=r"tower has 1\.\.3"):
        clip.visual.encode(tokens, other=OtherAttention("vv", start=4))
    with pytest.raises(ValueError, match="no taps"):
        clip.visual.encode(tokens, class_only=True, taps=(1,))


# --- text ----------------------------------------------------------------------------------------


def test_texts_with_and_without_their_projection(clip):
    ids = tokenize(TEXTS)
    given = clip.text.embed(ids), TextTower.ends(ids)
    unprojected = clip.text.encode(*given, projection=False)
    assert unprojected.shape == (3, 64)
    torch.testing.assert_close(unprojected @ clip.text.text_projection, clip.text(ids))


def test_cutting_after_the_end_of_text_is_exact(clip):
    ids = tokenize(TEXTS)
    whole = clip.text.encode(clip.text.token_embedding(ids), TextTower.ends(ids))
    assert clip.text.embed(ids).shape[1] == int(TextTower.ends(ids).max()) + 1 < 77
    torch.testing.assert_close(clip.text(ids), whole, atol=1e-5, rtol=0)


def test_one_text_set_per_image(clip):
    ids = tokenize(TEXTS)
    per_image = torch.randn(4, 3, 10, 64)
    ends = torch.randint(1, 10, (4, 3))
    together = clip.text.encode(per_image, ends)
    assert together.shape == (4, 3, 64)
    for image in range(4):
        alone = clip.text.encode(per_image[image], ends[image])
        torch.testing.assert_close(together[image], alone, atol=1e-5, rtol=0)
    assert clip.text(ids.expand(4, 3, 77)).shape == (4, 3, 64)


def test_shifted_end_of_text_reads_the_shifted_token(clip):
    """A pseudo-word of two vectors in front: the token to read moves with it."""
    ids = tokenize(TEXTS[:1])
    words = torch.randn(1, 2, 64)
    embeddings = torch.cat([clip.text.embed(ids)[:, :1], words, clip.text.embed(ids)[:, 1:]], 1)
    ends = TextTower.ends(ids) + 2
    got = clip.text.encode(embeddings, ends)
    x = embeddings + clip.text.positional_embedding[: embeddings.shape[1]]
    read = clip.text.ln_final(clip.text.transformer(x, causal=True).tokens)[:, ends[0]]
    torch.testing.assert_close(got, read @ clip.text.text_projection, atol=1e-5, rtol=0)


def test_the_end_token_is_found_even_behind_added_vocabulary():
    ids = torch.tensor([[49406, 49408, END_OF_TEXT, 0]])
    assert TextTower.ends(ids).tolist() == [2]
    with pytest.raises(ValueError, match="without end-of-text"):
        TextTower.ends(torch.zeros(1, 4, dtype=torch.long))


def test_a_sequence_longer_than_the_context_is_refused(clip):
    with pytest.raises(ValueError, match="78 tokens"):
        clip.text.encode(torch.randn(1, 78, 64), torch.tensor([77]))


def test_weights_that_do_not_fit_are_listed():
    clip = tiny_backbone().clip
    state = clip.openai_state()
    state["visual.proj"] = torch.zeros(3, 3)
    del state["ln_final.bias"]
    state["stranger"] = torch.zeros(1)
    with pytest.raises(
        ValueError, match=r"missing ln_final.bias; unknown stranger; visual.proj is"
    ):
        clip.load_openai_state(state)


def test_reduced_precision_stays_close(clip, pixels):
    half = tiny_backbone().clip.to(torch.bfloat16)
    got = half.visual(pixels.to(torch.bfloat16)).float()
    assert F.cosine_similarity(got, clip.visual(pixels)).min() > 0.99
