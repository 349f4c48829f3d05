"""The app: ``python app.py`` opens it at http://127.0.0.1:7860."""

from __future__ import annotations

import argparse
import importlib.util
import logging
import os
import sys


def port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"must be a number from 1 to 65535, not {text!r}")
    return int(text)


def main(arguments: list[str] | None = None) -> int:
    """Serves the page until it is stopped; returns the exit status."""
    logging.basicConfig(format="%(levelname)s %(message)s", level=logging.INFO)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # gradio looks at itself at its start
    parser = argparse.ArgumentParser(description="Faces drawn as anime, in the browser.")
    parser.add_argument(
        "--host",
        default=os.environ.get("GRADIO_SERVER_NAME") or ("0.0.0.0" if "SPACE_ID" in os.environ else "127.0.0.1"),
        help="default: GRADIO_SERVER_NAME, or 127.0.0.1; 0.0.0.0 for other machines",
    )
    parser.add_argument("--port", type=port, help="default: 7860, or the next one that is free")
    parser.add_argument("--share", action="store_true", help="also open a public link, for up to a week")
    parser.add_argument("--mcp", action="store_true", help="also offer the endpoints as MCP tools")
    parser.add_argument(
        "--serve",
        metavar="ADDRESS",
        help="draw on the Ray cluster of that address, where python -m stargan serve was run; this process only finds faces",
    )
    options = parser.parse_args(arguments)
    if options.mcp and importlib.util.find_spec("mcp") is None:
        parser.error("--mcp needs a further package: pip install 'gradio[mcp]'")

    if "SPACE_ID" in os.environ:  # all come through its proxy, which alone reaches this, and says who they are
        os.environ.setdefault("FORWARDED_ALLOW_IPS", "*")
    if options.serve:
        os.environ["STARGAN_SERVE"] = options.serve
    try:
        from stargan.page import layout, models, serving

        models.cluster()
        page = layout.build(shared=options.share)
        serving.serve(page, options.host, options.port, share=options.share, mcp=options.mcp)
    except ValueError as error:  # which sentences come as
        parser.error(str(error))
    except ModuleNotFoundError as error:
        if options.serve and (error.name or "").partition(".")[0] == "ray":
            parser.error(f"--serve needs a further package ({error.name}): pip install 'ray[serve]'")
        parser.error(f"The package {error.name} is not installed: pip install -r requirements.txt")
    except OSError as error:
        print(error.strerror or error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
