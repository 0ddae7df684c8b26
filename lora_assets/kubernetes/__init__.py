"""What is particular to Kubernetes: step pods, the executor, lost pods."""

from typing import Literal

Executor = Literal["in_process", "multiprocess", "k8s_job"]
"""Where the steps of a run are: in the run's process, in one each, or in a pod each.

With `k8s_job`, a run of nothing but light steps has them in its own pod.
"""
