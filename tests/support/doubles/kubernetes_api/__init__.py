"""A double of the Kubernetes API server, for the real client libraries."""

from tests.support.doubles.kubernetes_api.job_pods import Node
from tests.support.doubles.kubernetes_api.jobs import Job, Jobs
from tests.support.doubles.kubernetes_api.pods import Pod
from tests.support.doubles.kubernetes_api.server import KubernetesApi
from tests.support.doubles.kubernetes_api.services import Deployment, Service

__all__ = ["Deployment", "Job", "Jobs", "KubernetesApi", "Node", "Pod", "Service"]
