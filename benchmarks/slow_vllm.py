"""A worker of vLLM whose every step takes a share longer for one adapter: a planted slowdown.

`vllm --worker-cls=benchmarks.slow_vllm.SlowWorker`, with SLOW_ADAPTER and SLOWER_BY set. The
adapter of the newest request counts, since a block of a load test has one adapter alone.
"""

import os
from functools import partial
from typing import Any

from vllm.v1.worker.cpu_worker import CPUWorker

from benchmarks.slowdown import slowed

ADAPTER, SHARE = os.environ["SLOW_ADAPTER"], float(os.environ["SLOWER_BY"])


class SlowWorker(CPUWorker):  # type: ignore[misc]
    _slow = False

    def execute_model(self, scheduler_output: Any) -> Any:
        for new in scheduler_output.scheduled_new_reqs:
            self._slow = new.lora_request is not None and new.lora_request.lora_name == ADAPTER
        share = SHARE if self._slow else 0.0
        return slowed(partial(super().execute_model, scheduler_output), share)
