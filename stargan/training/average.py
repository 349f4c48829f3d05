"""The mean of several models' weights, as a model (Wortsman et al. 2022, arXiv:2203.05482).

Snapshots of runs that started from one another lie in one basin: the mean of their weights draws more evenly than each of them, as
the moving average of a run does, and what one has learned beside the others is blended in by degrees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from stargan.models.checkpoint import Model
from stargan.models.config import ModelError


@torch.no_grad()
def average(models: Sequence[Model], weights: Sequence[float] | None = None) -> Model:
    """The weighted mean, whose config is the last model's, with the licences of all, and says what it is the mean of.

    Args:
        models: of one architecture, with the same domains.
        weights: over 0, one for each, in any proportion; None: all alike.

    Raises:
        ModelError: they differ in more than their weights.
        ValueError: there are no models, or the weights are not one for each, or one is not over 0.
    """
    weights = [1.0] * len(models) if weights is None else weights
    if not models or len(weights) != len(models) or not all(0 < weight < float("inf") for weight in weights):
        raise ValueError(f"{len(models)} models have as many weights, each over 0, not {', '.join(map(str, weights))}.")
    last = models[-1].config
    for model in models:
        config = model.config
        if (config.architecture, config.domains, config.grayscale_domains, config.framing) != (
            last.architecture, last.domains, last.grayscale_domains, last.framing
        ):  # fmt: skip
            raise ModelError(
                f"The models {config.name} and {last.name} have other architectures, domains or framings: "
                "their weights have no mean."
            )
    shares = [weight / sum(weights) for weight in weights]
    of = [
        f"{model.config.name}, {model.config.training.get('iterations', '?')} iterations: {share:.3g}"
        for model, share in zip(models, shares, strict=True)
    ]
    not_the_mean = [  # but for what was done before they parted
        name
        for name in ("calibrated", "refined", "finished", "matched")
        if any(model.config.training.get(name) != last.training.get(name) for model in models)
    ]
    facts = {name: fact for name, fact in last.training.items() if name not in not_the_mean}
    # each once: a mean of a mean has several
    licences = dict.fromkeys(one for model in models for one in model.config.licence.split("; ") if one)
    mean = Model.build(replace(last, licence="; ".join(licences), training={**facts, "mean_of": of}))
    for name, network in mean.networks().items():
        states = [model.networks()[name].state_dict() for model in models]
        network.load_state_dict(
            {
                key: sum(share * state[key] for share, state in zip(shares, states, strict=True))
                if tensor.is_floating_point()
                else tensor
                for key, tensor in states[-1].items()
            }
        )
    return mean
