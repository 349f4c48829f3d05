"""Facts that floors share and that ``--help`` shows; this module imports nothing."""

DEFAULT_MODEL = "anime-64"
# The largest truncation ψ: beyond, styles are like none that the networks were trained on.
MAX_PSI = 1.5
