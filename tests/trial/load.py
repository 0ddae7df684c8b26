"""Ask live without a pause until the standard input ends; print what came, as JSON.

The tests run this in the pod `client`, where only the packages of the image are.
"""

import json
import os
import sys
from collections import Counter
from threading import Event, Thread

import httpx

CLIENTS = 2
PROMPT = "What is a log group?"
models: Counter[str] = Counter()
failures: list[str] = []
stopped = Event()


def ask() -> None:
    url, key = os.environ["VLLM_URL"], os.environ["VLLM_API_KEY"]
    # The embedded server does not sample.
    body = {"model": "aws-rag-qa-live", "prompt": PROMPT, "max_tokens": 16, "temperature": 0}
    # Two cores have more to do than this.
    while not stopped.wait(0.1):
        try:
            # A connection each, so that the Service chooses a replica for every request.
            # One that is refused is tried again: nothing was asked yet.
            with httpx.Client(
                transport=httpx.HTTPTransport(verify=False, retries=5), timeout=60
            ) as client:
                headers = {"Authorization": f"Bearer {key}"}
                reply = client.post(f"{url}/v1/completions", json=body, headers=headers)
                reply.raise_for_status()
                models[reply.json()["model"]] += 1
        except httpx.HTTPError as error:
            failures.append(repr(error))


threads = [Thread(target=ask) for _ in range(CLIENTS)]
for thread in threads:
    thread.start()
sys.stdin.read()
stopped.set()
for thread in threads:
    thread.join()
print(json.dumps({"models": models, "failures": failures}))
