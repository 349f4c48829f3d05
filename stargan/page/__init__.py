"""The Gradio page and its endpoints: the only place that imports gradio."""

import os
import tempfile

# Read by gradio when it is imported. The folder of uploads and results is this app's own, since it deletes what lies there: in a
# folder that somebody names, which may hold anything, one of its own name; apps that are told the same share it.
_NAME = "stargan-files"
_user = getattr(os, "getuid", lambda: 0)()  # on Windows, each has a folder of temporary files anyway
_named = os.environ.get("GRADIO_TEMP_DIR") or os.path.join(tempfile.gettempdir(), f"stargan-{_user}")
if os.path.basename(_named) != _NAME:  # a process that this one starts is told its folder
    _named = os.path.join(_named, _NAME)
os.environ["GRADIO_TEMP_DIR"] = _named
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
