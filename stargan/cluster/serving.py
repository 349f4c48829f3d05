"""Many visitors, by Ray Serve: pages send their tasks to replicas, each of which holds the models.

What crosses is :class:`stargan.drawing.Task` and what comes of it, :class:`stargan.drawing.Painted`. A task can be done again, so
that of a replica that ends another takes over. Tasks of several visitors are not joined into one batch: a picture's last bit may
depend on what else is in its batch, and the same request gives the same bytes here; on a CPU it would not be faster either, where the
decoder takes one picture at a time.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

import ray
from ray import serve
from ray.exceptions import RayError
from ray.serve.config import AutoscalingConfig
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.schema import ReplicaState

from stargan.cluster import ClusterError, connect, connected, reason
from stargan.constants import DEFAULT_MODEL, MAX_AGE
from stargan.drawing import CACHE, Painted, Seeds, Task, load_translator
from stargan.errors import RequestError
from stargan.stages import Stages, counted, include

log = logging.getLogger("stargan.app")

APP = "stargan"
# Tasks that a page has waiting at most; whoever comes then is told so.
WAITING = 64
# How often a task is sent, and how many seconds each time at most.
TRIES, SECONDS = 3, 120.0
# Tasks a replica, at work or waiting, beyond which there will be more replicas.
CROWD = 2
# How often a replica looks for faces to let go of, in seconds.
FORGET_EVERY = 60.0


class Painter:
    """A replica: draws one task at a time."""

    def __init__(self, device: str | None) -> None:
        from PIL import Image

        self.device = device
        translator = load_translator(DEFAULT_MODEL, device)
        blank = Image.new("RGB", (translator.image_size, translator.image_size))
        translator.paint(Task((blank,), Seeds(translator.domains[0], (0,), 1.0), passing=True))
        threading.Thread(target=_forget, name="Forgetting", daemon=True).start()

    def __call__(self, model: str, task: Task) -> tuple[Painted | None, Exception | None, Stages]:
        """What comes of a task, what it raises, of which Ray would make errors of its own, and where its time goes."""
        with counted() as stages:
            try:
                return load_translator(model, self.device).paint(task), None, stages
            except Exception as error:
                return None, error, stages


def _forget() -> None:
    """No face stays for an hour, however few visitors come after."""
    while True:
        CACHE.drop_older(MAX_AGE)
        time.sleep(FORGET_EVERY)


def deploy(address: str, fewest: int, most: int, device: str | None = None) -> None:
    """Puts replicas on a cluster, as many as its tasks need; they stay when this process ends.

    Raises:
        ClusterError: there is no cluster, or a replica cannot start there.
    """
    with connected(address):
        # no door of their own: only the cluster's own processes reach them
        serve.start(proxy_location="Disabled")
        on_gpu = bool(ray.cluster_resources().get("GPU")) and device != "cpu"
        painter: Any = serve.deployment(
            Painter,
            name="Painter",
            ray_actor_options={"num_cpus": 1, "num_gpus": int(on_gpu)},
            max_ongoing_requests=1,
            max_queued_requests=WAITING,
            autoscaling_config=AutoscalingConfig(
                min_replicas=fewest,
                max_replicas=most,
                initial_replicas=fewest,
                target_ongoing_requests=CROWD,
                upscale_delay_s=5,
                downscale_delay_s=300,
            ),
            health_check_period_s=2,
        )
        try:
            serve.run(painter.bind(device), name=APP, route_prefix=None)
        except (RayServeException, RuntimeError) as error:
            raise ClusterError(f"The replicas cannot start: {error}") from error


class Replicas:
    """A page's way to them.

    Raises:
        ClusterError: there is no cluster, or no replicas were put there.
    """

    def __init__(self, address: str) -> None:
        connect(address)
        try:
            self._handle: Any = serve.get_app_handle(APP)
        except (RayServeException, RayError) as error:
            raise ClusterError(
                f"Nothing draws on the cluster at {address}: run python -m stargan serve {address} first."
            ) from error

    def ready(self) -> bool:
        """Whether a replica can draw; others may be on their way."""
        try:
            status = serve.status().applications.get(APP)
        except (RayError, RayServeException):
            return False
        return status is not None and any(
            part.replica_states.get(ReplicaState.RUNNING) for part in status.deployments.values()
        )

    def __call__(self, model: str, task: Task) -> Painted:
        """
        Raises:
            stargan.errors.RequestError: too much is waiting, or no replica can be reached.
        """
        for attempt in range(1, TRIES + 1):
            try:
                painted, error, stages = self._handle.remote(model, task).result(timeout_s=SECONDS)
            except BackPressureError:
                raise RequestError("queue_full") from None
            except (RayError, RayServeException, TimeoutError) as lost:
                log.warning("a replica was lost, try %d: %s", attempt, reason(lost))
                continue
            include(stages)
            if painted is None:
                raise error or RuntimeError("nothing was drawn")
            return painted
        raise RequestError("stopping")
