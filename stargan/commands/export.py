"""``python -m stargan export``: a model for programs without PyTorch."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "export",
        help="write a model's networks as ONNX files",
        description="Writes encoder, decoder, mapping network and style encoder as ONNX files, in fp32 and fp16, and model.json, "
        "which says what they take and return; then compares them with this program's own pictures. "
        "Needs onnx, onnxscript and onnxruntime.",
    )
    parser.add_argument("model", help="a registered name, a model folder, or user/repo[@revision] on the Hub")
    parser.add_argument("--onnx", type=Path, required=True, metavar="FOLDER", help="where to write them")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from stargan.inference.exported import differences
    from stargan.inference.translator import Translator
    from stargan.models.checkpoint import load_model
    from stargan.models.exporting import check_exportable, describe, export
    from stargan.models.registry import config_of, find_model

    for library in ("onnxscript", "onnx_ir"):
        logging.getLogger(library).setLevel(logging.WARNING)  # they report every node that they simplify
    folder = options.onnx
    check_exportable(config_of(options.model))
    model = load_model(find_model(options.model))
    export(model, folder)
    found = differences(folder, Translator(model, "cpu", "exact"))
    describe(model, folder, found)
    size = sum(file.stat().st_size for file in folder.glob("*.onnx")) / 1e6
    print(f"{folder}: {model.config.name} as ONNX, {size:.1f} MB. Largest differences to this program's own:")
    for precision, by_kind in found.items():
        print(f"  {precision}: " + ", ".join(f"{what} {difference:.1e}" for what, difference in by_kind.items()))
    return 0
