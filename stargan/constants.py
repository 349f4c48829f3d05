"""Facts that floors share and that ``--help`` shows; this module imports nothing."""

DEFAULT_MODEL = "anime-128"
# The largest truncation ψ: beyond, styles are like none that the networks were trained on.
MAX_PSI = 1.5
# Nothing of a visitor is kept for longer, in seconds, on disk or in memory; they are told an hour.
MAX_AGE = 3000.0


def default_base_channels(image_size: int) -> int:
    """The published width of the first layer: 64 at 256 px, 128 at 128 px."""
    return 2**14 // image_size
