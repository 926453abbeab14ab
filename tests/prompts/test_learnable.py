"""Learned sentences: what enters the text tower, and what official files must hold."""

from __future__ import annotations

import pytest
import torch
from models import tiny_backbone

from zerodefect.backbones.clip import CLIP, END_OF_TEXT, tokenize
from zerodefect.detector.official_files import Checked
from zerodefect.prompts.learnable import (
    NORMAL_AND_DAMAGED,
    LearnedPrompts,
    Sentence,
    published_sizes,
    with_token,
)

SHARED = (
    Sentence("good", ("a",), "object."),
    Sentence("bad", ("a", "b"), "damaged object."),
)


@pytest.fixture(scope="module")
def clip() -> CLIP:
    return tiny_backbone(text_layers=4).clip


def learner(clip: CLIP, seed: int = 0, **options) -> LearnedPrompts:
    options = {
        "lengths": {"ctx_pos": 5, "ctx_neg": 5},
        "depth": 3,
        "deep_length": 2,
        "std": 0.3,
        **options,
    }
    generator = torch.Generator().manual_seed(seed)
    return LearnedPrompts(clip.text, generator=generator, **options)


def put_words(prompts: LearnedPrompts, clip: CLIP, word: str) -> None:
    """Let every context vector be a word's embedding."""
    embedding = clip.text.token_embedding(tokenize([word])[0, 1])
    with torch.no_grad():
        for name in prompts.lengths:
            prompts.get_parameter(name).copy_(embedding)


def test_contexts_that_are_words_give_the_features_of_the_written_text(clip):
    prompts = learner(clip, depth=1)
    put_words(prompts, clip, "x")
    written = clip.text(tokenize(["x x x x x object.", "x x x x x damaged object."]))
    torch.testing.assert_close(prompts(clip.text), written, atol=1e-5, rtol=1e-5)
    assert torch.equal(prompts.token_ids(), tokenize(["X " * 5 + w for w in _words(prompts)]))


def _words(prompts: LearnedPrompts) -> list[str]:
    return [sentence.words for sentence in prompts.sentences]


def test_deep_tokens_replace_positions_before_blocks_and_are_rounded(clip):
    """Block by block, by hand."""
    prompts = learner(clip)
    embeddings, ends = prompts.embeddings(clip.text)
    x = embeddings + clip.text.positional_embedding[: embeddings.shape[1]]
    for number, block in enumerate(clip.text.transformer.blocks):
        if 1 <= number <= 2:
            x = x.clone()
            x[:, 1:3] = prompts.compound_prompts_text[number - 1].half().float()
        h = block.ln_1(x)
        q, k, v = block.attn.project(h)
        mask = torch.ones(x.shape[1], x.shape[1]).triu(1) * -1e9
        attention = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5 + mask).softmax(-1)
        x = x + block.attn.join(attention @ v)
        x = x + block.mlp(block.ln_2(x))
    expected = clip.text.ln_final(x)[torch.arange(2), ends] @ clip.text.text_projection
    torch.testing.assert_close(prompts(clip.text), expected, atol=1e-5, rtol=1e-5)


def test_sentences_may_share_contexts_and_be_of_any_length(clip):
    prompts = learner(clip, sentences=SHARED, lengths={"a": 3, "b": 2})
    assert prompts(clip.text).shape == (2, clip.config.embed_dim)
    _, ends = prompts.embeddings(clip.text)
    assert ends.tolist() == [1 + 3 + 2, 1 + 3 + 2 + 3]
    prompts(clip.text)[1].sum().backward()
    assert prompts.get_parameter("a").grad.abs().max() > 0
    assert (prompts.token_ids() == END_OF_TEXT).int().argmax(1).tolist() == ends.tolist()


def test_given_contexts_broadcast_over_images_and_samples(clip):
    prompts = learner(clip)
    shift = torch.randn(3, 2, 1, clip.config.text.width)
    moved = prompts.context("ctx_neg") + shift
    many = prompts(clip.text, {"ctx_neg": moved})
    assert many.shape == (3, 2, 2, clip.config.embed_dim)
    one = prompts(clip.text, {"ctx_neg": moved[2, 1]})
    torch.testing.assert_close(many[2, 1], one, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(many[0, 0, 0], prompts(clip.text)[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("place", "order"),
    [
        ("pad_suffix", [0, 1, 2, 9]),
        ("pad_prefix", [9, 0, 1, 2]),
        ("replace_suffix", [0, 1, 9]),
        ("replace_prefix", [9, 1, 2]),
    ],
)
def test_a_token_of_the_image_in_the_context(place, order):
    context, tokens = torch.arange(3.0)[:, None].expand(3, 4), torch.full((2, 4), 9.0)
    got = with_token(context, tokens, place)
    assert got[:, :, 0].tolist() == [[float(v) for v in order]] * 2


def test_a_token_that_does_not_fit():
    with pytest.raises(ValueError, match="width 5 cannot stand in a text of width 4"):
        with_token(torch.zeros(3, 4), torch.zeros(2, 5), "pad_suffix")
    with pytest.raises(ValueError, match="place is one of"):
        with_token(torch.zeros(3, 4), torch.zeros(2, 4), "middle")


def test_initial_values_come_from_the_generator_alone(clip):
    torch.manual_seed(1)
    first = learner(clip, 7).state_dict()
    torch.manual_seed(2)
    again, other = learner(clip, 7).state_dict(), learner(clip, 8).state_dict()
    assert set(first) == {"ctx_pos", "ctx_neg", *(f"compound_prompts_text.{i}" for i in range(2))}
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)
    assert first["ctx_pos"].std() == pytest.approx(0.3, rel=0.2)


def test_features_are_computed_once_until_cleared(clip):
    prompts = learner(clip)
    with torch.inference_mode():
        first = prompts.cached(clip.text)
    assert prompts.cached(clip.text) is first
    assert not first.is_inference() and not first.requires_grad
    with torch.no_grad():
        prompts.get_parameter("ctx_pos").add_(1)
    assert prompts.cached(clip.text) is first
    prompts.clear()
    assert not torch.equal(prompts.cached(clip.text)[0], first[0])


def test_float32_values_in_a_bfloat16_tower():
    clip = tiny_backbone().clip
    prompts = learner(clip, depth=2)
    full = prompts(clip.text)
    half = prompts(clip.bfloat16().text)
    assert half.dtype == torch.float32
    cosine = torch.nn.functional.cosine_similarity(full, half)
    assert cosine.min() > 0.995


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"depth": 5}, r"depth 5: .* 1\.\.4 blocks"),
        ({"depth": 0}, "depth 0"),
        ({"lengths": {"ctx_pos": 5, "ctx_neg": 75}}, "80 tokens, but the text tower reads 77"),
        ({"lengths": {"ctx_pos": 0, "ctx_neg": 5}}, "at least one vector"),
        ({"deep_length": 8}, "8 deep tokens would overwrite the end"),
    ],
)
def test_sizes_that_cannot_be(clip, options, reason):
    with pytest.raises(ValueError, match=reason):
        learner(clip, **options)


# --- official files --------------------------------------------------------------------------


def official(prompts: LearnedPrompts, clip: CLIP) -> dict[str, torch.Tensor]:
    """What the official trainer writes."""
    table = clip.text.token_embedding.weight
    state = {name: value.detach().clone() for name, value in prompts.named_parameters()}
    for i in range(len(prompts.compound_prompts_text)):
        state[f"compound_prompt_projections.{i}.weight"] = torch.zeros(7, 3)
        state[f"compound_prompt_projections.{i}.bias"] = torch.zeros(7)
    for sentence, ids in zip(prompts.sentences, prompts.token_ids(), strict=True):
        vectors = sum(prompts.lengths[name] for name in sentence.contexts)
        state[f"token_prefix_{sentence.name}"] = table[ids[:1]][None, None].clone()
        state[f"token_suffix_{sentence.name}"] = table[ids[1 + vectors :]][None, None].clone()
        state[f"tokenized_prompts_{sentence.name}"] = ids[None, None].int()
    return state


def test_an_official_file_gives_its_values_and_sizes(clip):
    written, reader = learner(clip, 1), learner(clip, 2)
    published = official(written, clip)
    assert published_sizes(published) == {"context_length": 5, "depth": 3, "deep_length": 2}
    checked = Checked(published, "file")
    state = reader.published(checked, clip.text)
    checked.done()
    reader.load_state_dict(state, strict=True)
    assert torch.equal(reader(clip.text), written(clip.text))


def test_a_file_of_another_clip_or_of_other_sentences_is_refused(clip):
    published = official(learner(clip), clip)
    published["token_prefix_pos"] += 0.1
    published["token_suffix_neg"][0, 0, 1] = 0
    published["tokenized_prompts_neg"][0, 0, 7] = 320
    published["compound_prompts_text.2"] = torch.zeros(2, 64)
    del published["ctx_neg"]
    checked = Checked(published, "file")
    learner(clip).published(checked, clip.text)
    with pytest.raises(ValueError) as caught:
        checked.done()
    for told in (
        "ctx_neg is missing",
        "compound_prompts_text.2 is unknown",
        "token_prefix_pos is not this backbone's token embedding",
        "token_suffix_neg is not this backbone's token embedding",
        "tokenized_prompts_neg are not the tokens of 'damaged object.'",
    ):
        assert told in str(caught.value)
    assert "token_suffix_pos" not in str(caught.value)


def test_sizes_of_something_else_are_not_read():
    assert published_sizes({"weight": torch.zeros(3)}) == {}
    assert NORMAL_AND_DAMAGED[1].words == "damaged object."
