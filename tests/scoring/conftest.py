"""A real local cluster, for the files of tests that need one."""

from __future__ import annotations

import warnings

import pytest

try:
    import ray
    from ray.cluster_utils import Cluster
except ImportError:
    ray = None
    warnings.warn("ray is not installed: clusters are NOT tested; pip install ray", stacklevel=1)

needs_ray = pytest.mark.skipif(ray is None, reason="ray is not installed: the cluster engine is NOT tested")
MACHINE = {"num_cpus": 1}
HEAD = MACHINE | {"include_dashboard": False, "include_log_monitor": False, "no_monitor": True}
"""Without processes that take time and do nothing for these tests."""


def new_cluster() -> Cluster:
    """One machine of one core; `add_node(**MACHINE)` adds more."""
    return Cluster(initialize_head=True, head_node_args=HEAD)


@pytest.fixture(scope="module")
def cluster(request):
    """A new one, to which this process is connected."""
    whole = new_cluster()
    ray.init(address=whole.address, log_to_driver=False)
    ray.cloudpickle.register_pickle_by_value(request.module)  # workers cannot import the tests
    yield whole
    ray.shutdown()
    whole.shutdown()


@pytest.fixture
def light(cluster, monkeypatch, request):
    """Workers of the file's `engine` are of the file's class `Light`: without a model, they start quickly.

    What they give back may be of no module that imports torch, since their processes import it, too.
    """
    monkeypatch.setattr(request.module.engine, "Worker", request.module.Light)
