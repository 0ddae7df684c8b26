"""What is particular to Kubernetes: step pods, the executor, lost pods."""
