"""Folded networks against those of stargan.networks, in float64: the same but for rounding."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stargan.inference import folding, kernels
from stargan.inference.folding import FoldedDecoder, FoldedEncoder, fold_style_encoder, prepare
from stargan.inference.kernels import scaled_norm
from stargan.networks import AdainResBlock, Generator, ResBlock, StyleEncoder, instance_norm

CPU = torch.device("cpu")
EXACT = {"rtol": 0, "atol": 1e-10}


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.inference_mode():
        yield


def randomised(module: nn.Module, dtype: torch.dtype = torch.float64) -> nn.Module:
    """All parameters drawn anew, biases and scales of norms too, which are 0 and 1 at first and would hide mistakes."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        fan_in = parameter[0].numel() if parameter.dim() > 1 else 4
        parameter.normal_(0, fan_in**-0.5)
    return module.to(dtype).eval()


@pytest.fixture
def wide_norm(monkeypatch):
    """The unfolded networks compute norms in fp32 by design; here they must not, to compare in float64."""

    def instance_norm64(x):
        return F.instance_norm(x, eps=1e-5)

    monkeypatch.setattr("stargan.networks.instance_norm", instance_norm64)


def test_spread_after_upsampling():
    conv = randomised(nn.Conv2d(3, 5, 3, padding=1))
    x = torch.randn(2, 3, 7, 6, dtype=torch.float64)
    expected = conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
    weight = kernels.spread(conv.weight).flip(2, 3).transpose(0, 1)
    torch.testing.assert_close(F.conv_transpose2d(x, weight, conv.bias, stride=2, padding=1), expected, **EXACT)


def test_spread_before_pooling():
    conv = randomised(nn.Conv2d(3, 5, 3, padding=1))
    x = torch.randn(2, 3, 8, 6, dtype=torch.float64)
    expected = F.avg_pool2d(conv(x), 2)
    weight = kernels.spread(conv.weight) / 4
    torch.testing.assert_close(F.conv2d(x, weight, conv.bias, stride=2, padding=1), expected, **EXACT)


@pytest.mark.parametrize("tile", [2, 4])
@pytest.mark.parametrize("biased", [False, True])
def test_winograd(monkeypatch, tile, biased):
    monkeypatch.setattr(kernels, "_STRIP", 4096)  # several strips, the last one shorter
    conv = randomised(nn.Conv2d(6, 5, 3, padding=1, bias=biased))
    x = torch.randn(2, 6, 20, 12, dtype=torch.float64)
    result = kernels.Winograd(conv.weight, conv.bias, (20, 12), tile)(x)
    torch.testing.assert_close(result, conv(x), **EXACT)
    assert result.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("biased", [False, True])
def test_upsampling(biased):
    conv = randomised(nn.Conv2d(6, 5, 3, padding=1, bias=biased))
    x = torch.randn(2, 6, 7, 9, dtype=torch.float64)
    expected = conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
    weight = kernels.spread(conv.weight).flip(2, 3).transpose(0, 1)
    result = kernels.Upsampling(weight, conv.bias, (7, 9))(x)
    torch.testing.assert_close(result, expected, **EXACT)
    assert result.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("compiling", [False, True])
def test_scaled_norm(monkeypatch, compiling, memory_format):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: compiling)
    x = (3 * torch.randn(2, 5, 8, 8) + 2).to(memory_format=memory_format)
    scale, shift = torch.randn(2, 2, 5)
    expected = F.leaky_relu(instance_norm(x) * scale[:, :, None, None] + shift[:, :, None, None], 0.2)
    torch.testing.assert_close(scaled_norm(x.clone(), scale, shift), expected, rtol=1e-5, atol=1e-5)


def test_scaled_norm_of_bf16_has_fp32_statistics():
    # A mean of 100 leaves bf16 steps of 0.5: statistics in bf16 would be far off.
    x = (torch.randn(1, 8, 32, 32) + 100).bfloat16().to(memory_format=torch.channels_last)
    scale, shift = torch.ones(1, 8), torch.zeros(1, 8)
    expected = F.leaky_relu(instance_norm(x.float()), 0.2)
    result = scaled_norm(x, scale, shift)
    assert result.dtype == torch.bfloat16
    torch.testing.assert_close(result.float(), expected, rtol=2**-7, atol=2e-3)


@pytest.fixture
def two_threads() -> Iterator[None]:
    """One alone adds up twice as many numbers in a row, and rounds more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("side", [16, 64])
@pytest.mark.parametrize("mean", [0, 7, 10, 100])
def test_scaled_norm_of_channels_far_from_zero(mean, side):
    x = (torch.randn(1, 8, side, side) + mean).to(memory_format=torch.channels_last)
    expected = F.leaky_relu(instance_norm(x), 0.2)
    tolerance = 2e-6 * max(mean, 10)  # the mean itself is rounded
    result = scaled_norm(x, torch.ones(1, 8), torch.zeros(1, 8))
    torch.testing.assert_close(result, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("downsample", [False, True])
@pytest.mark.parametrize("dim_out", [6, 9])
@pytest.mark.usefixtures("wide_norm")
def test_residual_block(dim_out, downsample, normalize):
    block = randomised(ResBlock(6, dim_out, normalize=normalize, downsample=downsample))
    x = torch.randn(2, 6, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(folding.FoldedResBlock(block, 8)(x), block(x), **EXACT)


@pytest.mark.parametrize("shortcut", [False, True])
@pytest.mark.parametrize("upsample", [False, True])
@pytest.mark.parametrize("dim_out", [6, 4])
@pytest.mark.usefixtures("wide_norm")
def test_styled_block(dim_out, upsample, shortcut):
    block = randomised(AdainResBlock(6, dim_out, 8, upsample=upsample, shortcut=shortcut))
    x, style = torch.randn(2, 6, 8, 8, dtype=torch.float64), torch.randn(2, 8, dtype=torch.float64)
    affine = []
    for norm in (block.norm1, block.norm2):
        gamma, beta = norm.fc(style).chunk(2, dim=1)
        affine += [1 + gamma, beta]
    torch.testing.assert_close(folding.FoldedAdainResBlock(block, 8)(x, *affine), block(x, style), **EXACT)


@pytest.mark.parametrize("high_pass_weight", [0.0, 1.0])
@pytest.mark.usefixtures("wide_norm")
def test_generator(high_pass_weight):
    generator = randomised(Generator(128, 16, high_pass_weight, base_channels=4, max_channels=12))
    x, style = torch.randn(2, 3, 128, 128, dtype=torch.float64), torch.randn(2, 16, dtype=torch.float64)
    masks = tuple(torch.rand(2, 1, side, side, dtype=torch.float64) for side in (32, 64)) if high_pass_weight else None
    features, edges = FoldedEncoder(generator)(x, masks)
    expected_features, expected_edges = generator.encoder(x, masks)
    torch.testing.assert_close(features, expected_features, **EXACT)
    assert list(edges) == ([128, 64, 32] if high_pass_weight else [])
    torch.testing.assert_close(edges, expected_edges, **EXACT)
    drawn = FoldedDecoder(generator)(features, style, edges)
    torch.testing.assert_close(drawn, generator(x, style, masks), **EXACT)
    if high_pass_weight:  # without edges, too
        torch.testing.assert_close(
            FoldedDecoder(generator)(features, style), generator.decoder(features, style), **EXACT
        )


@pytest.mark.usefixtures("wide_norm")
def test_finisher():
    generator = randomised(Generator(64, 16, base_channels=4, max_channels=8, finish_channels=6))
    features, style = torch.randn(2, 8, 16, 16, dtype=torch.float64), torch.randn(2, 16, dtype=torch.float64)
    expected = generator.decoder(features, style)
    torch.testing.assert_close(FoldedDecoder(generator)(features, style), expected, **EXACT)
    generator.finish = None
    assert (expected - generator.decoder(features, style)).abs().mean() > 0.1


def test_style_encoder():
    style_encoder = randomised(StyleEncoder(64, 16, 3, base_channels=8, max_channels=12))
    x, domain = torch.randn(3, 3, 64, 64, dtype=torch.float64), torch.tensor([0, 2, 1])
    expected = style_encoder(x, domain)
    torch.testing.assert_close(fold_style_encoder(style_encoder, 64)(x, domain), expected, **EXACT)
    torch.testing.assert_close(style_encoder(x, domain), expected, **EXACT)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 0.1)])
@pytest.mark.parametrize(("high_pass_weight", "finish_channels"), [(0.0, 0), (1.0, 0), (0.0, 8)])
def test_prepared(high_pass_weight, finish_channels, dtype, tolerance, packed):
    generator = randomised(Generator(64, 16, high_pass_weight, 16, 32, finish_channels), torch.float32)
    x, style = torch.randn(2, 3, 64, 64), torch.randn(2, 16)
    masks = (torch.rand(2, 1, 32, 32), torch.rand(2, 1, 64, 64)) if high_pass_weight else None
    encoder = prepare(FoldedEncoder(generator), CPU, dtype, packed=packed)
    decoder = prepare(FoldedDecoder(generator), CPU, dtype, packed=packed)
    expected = generator(x, style, masks)
    result = decoder(*_swapped(encoder(x.to(dtype), masks), style))
    assert result.dtype == dtype
    error = (result.float() - expected).abs()
    assert error.max() < tolerance * expected.abs().max()


def _swapped(encoded, style):
    features, edges = encoded
    return features, style, edges


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="weights are packed for oneDNN")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_wide_networks(dtype):
    """Of the published widths in the middle: there, fewer multiplications are done."""
    generator = randomised(Generator(128, 16, base_channels=64, max_channels=256), torch.float32)
    encoder, decoder = (prepare(part(generator), CPU, dtype) for part in (FoldedEncoder, FoldedDecoder))
    kinds = {type(part) for part in decoder.modules()}
    assert {kernels.Winograd, kernels.Upsampling} <= kinds
    x, style = torch.tanh(torch.randn(1, 3, 128, 128)), torch.randn(3, 16)
    expected = generator(x.expand(3, -1, -1, -1), style)
    features, edges = encoder(x.to(dtype))
    drawn = [decoder(features, one[None], edges).float() for one in style]
    error = (torch.cat(drawn) - expected).square().mean() / expected.square().mean()
    assert error < (1e-9 if dtype == torch.float32 else 1e-2)
    together = decoder(features.expand(3, -1, -1, -1), style, edges).float()
    assert (together - torch.cat(drawn)).square().mean() < 2 * error * expected.square().mean()


def test_packing_is_used_and_keeps_other_sides_working():
    generator = randomised(Generator(64, 16, base_channels=16, max_channels=32), torch.float32)
    decoder = prepare(FoldedDecoder(generator), CPU, torch.float32)
    packed = [part._packed is not None for part in decoder.modules() if isinstance(part, kernels.FoldedConv)]
    assert all(packed) == torch.backends.mkldnn.is_available()
    features, style = torch.randn(3, 32, 8, 8), torch.randn(3, 16)
    torch.testing.assert_close(decoder(features, style), generator.decoder(features, style), rtol=1e-4, atol=2e-5)
