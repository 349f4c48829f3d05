"""The Gradio page and its endpoints: the only place that imports gradio."""

import os
import tempfile

# Read by gradio when it is imported. The folder of uploads and results is this app's own, since it deletes what lies there.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("GRADIO_TEMP_DIR", os.path.join(tempfile.gettempdir(), f"stargan-{os.getuid()}"))
