"""Calibration of a trained style encoder and mapping network to each other: both give styles that the decoder draws well, and
that are spread as those of real pictures are.

The style encoder learns from drawings that the generator made (the style reconstruction term; paper, section 3.2). Of real
pictures it gives styles beside those of the mapping network, and what is drawn from there is fainter at every scale. An affine
map of the styles, fitted once by ridge regression and widened to leave them as far apart as they were, takes most of that away.

The mapping network, in turn, is drawn to extremes by the diversity term, which no picture holds it to: drawings from seeds are
darker than real ones. A second affine map gives its styles the mean and the covariance of the pictures' styles, by then among
its own. The last layers are linear and take the maps in, so that a calibrated model is a model like any other.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from stargan.models.checkpoint import Model
from stargan.pictures.tensors import from_levels
from stargan.training.augment import to_luma
from stargan.training.config import option_of
from stargan.training.data import DataError, Faces

CODES = 4_000  # latent codes whose styles stand for all that the mapping network gives
PICTURES = 3_000  # of a domain, at most
NEIGHBOURS = 5  # styles of the mapping network whose mean a picture's style is to become
RIDGE = 1e-2  # of the mean variance, added to all: directions in which styles hardly differ are not made much of
BATCH = 50


@torch.no_grad()
def calibrate(model: Model, faces: Faces) -> dict[str, tuple[float, float]]:
    """Fits the last layers of style encoder and mapping network, in place, for each domain; the model's config says so.

    The aim for a picture's style is the mean of the :data:`NEIGHBOURS` nearest styles of the mapping network; the aim for
    those is then the normal distribution of the pictures' styles.

    Args:
        model: on the CPU.
        faces: training pictures of the model's side, on the CPU.

    Returns:
        For each domain, the mean distance of its pictures' styles from their aims, before and after.

    Raises:
        DataError: the model and the data have different domains; a domain has one picture alone, or all its pictures are alike;
            no picture is of a kind that the model's training weighed.
    """
    check_domains(model, faces)
    # as training drew them: of kinds of pictures, seeds and references then have the same shares
    _, odds = faces.weights(option_of(model.config.training, "target_weights") or {})
    found = {}
    for index, domain in enumerate(model.config.domains):
        random = torch.Generator().manual_seed(0)
        codes = torch.randn(CODES, model.config.architecture.latent_dim, generator=random)
        latent = model.mapping_network(codes, torch.full((CODES,), index))
        pictures = faces.pictures[faces.domains.index(domain)]
        if (own := odds[faces.domains.index(domain)]) is None:
            at = torch.randperm(len(pictures), generator=random)[:PICTURES]
        else:
            at = torch.multinomial(own, PICTURES, replacement=True, generator=random)
        pictures = pictures[at]
        gray = domain in model.config.grayscale_domains
        batches = (to_luma(x) if gray else x for x in (from_levels(part) for part in pictures.split(BATCH)))
        styles = torch.cat([model.style_encoder(x, torch.full((len(x),), index)) for x in batches])
        if len(styles) < 2 or not total_variance(styles):
            raise DataError(f"The pictures of {domain} are too few, or too much alike, to calibrate with.")
        aims = latent[torch.cdist(styles, latent).topk(NEIGHBOURS, largest=False).indices].mean(dim=1)
        fit = _as_spread_as(styles, _ridge_regression(styles, aims))
        _then(model.style_encoder.unshared[index], fit)
        fitted = styles @ fit[0].T + fit[1]
        *_, last = model.mapping_network.unshared[index].children()
        _then(last, moment_matching(latent, fitted))
        found[domain] = (_distance(styles, aims), _distance(fitted, aims))
    model.config = replace(model.config, training={**model.config.training, "calibrated": True})
    return found


def check_domains(model: Model, faces: Faces) -> None:
    """
    Raises:
        DataError: the model and the data have different domains.
    """
    if set(faces.domains) != set(model.config.domains):
        raise DataError(
            f"The model's domains are {', '.join(model.config.domains)}, those of the data {', '.join(faces.domains)}."
        )


def _then(layer: nn.Module, fit: tuple[Tensor, Tensor]) -> None:
    """Makes the affine map, weight and bias, part of the linear layer that comes before it."""
    assert isinstance(layer, nn.Linear)
    weight, bias = fit
    layer.bias.copy_(weight @ layer.bias + bias)
    layer.weight.copy_(weight @ layer.weight)


def _ridge_regression(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The affine map ``(D, D), (D,)`` that takes ``x`` nearest to ``y``, ``(N, D)`` each."""
    mean_x, mean_y = x.mean(dim=0), y.mean(dim=0)
    centred = x - mean_x
    weight = torch.linalg.solve(_covariance(x), centred.T @ (y - mean_y) / len(x)).T
    return weight, mean_y - weight @ mean_x


def _as_spread_as(x: Tensor, fit: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """The affine map, widened about the mean so that it leaves ``x`` its total variance: means of neighbours lie closer
    together than what they are of, and regression draws them closer still."""
    weight, bias = fit
    mean = x.mean(dim=0)
    wider = weight * (total_variance(x) / total_variance(x @ weight.T)) ** 0.5
    return wider, weight @ mean + bias - wider @ mean


def moment_matching(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The affine map ``(D, D), (D,)`` that gives ``x`` the mean and the covariance of ``y``, ``(N, D)`` and ``(M, D)``, and moves
    it least: the optimal transport between normal distributions (Peyré and Cuturi 2019, arXiv:1803.00567, remark 2.31)."""
    before, after = _covariance(x.double()), _covariance(y.double())
    root = _root(before)
    inverse = torch.linalg.inv(root)
    weight = (inverse @ _root(root @ after @ root) @ inverse).to(x.dtype)
    return weight, y.mean(dim=0) - weight @ x.mean(dim=0)


def total_variance(x: Tensor) -> float:
    """The total variance of ``(N, D)``."""
    return x.var(dim=0).sum().item()


def _covariance(x: Tensor) -> Tensor:
    """Of ``(N, D)``, regular: with a ridge."""
    return torch.cov(x.T) + RIDGE * total_variance(x) / x.shape[1] * torch.eye(x.shape[1], dtype=x.dtype)


def _root(x: Tensor) -> Tensor:
    """Of a symmetric, positive definite matrix."""
    values, vectors = torch.linalg.eigh(x)
    return vectors * values.sqrt() @ vectors.T


def _distance(x: Tensor, y: Tensor) -> float:
    return (x - y).norm(dim=1).mean().item()
