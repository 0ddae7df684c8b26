"""vLLM takes the options that the manifests give it."""

import json
import os
import subprocess
from collections.abc import Sequence

import pytest
import yaml

from tests.support.manifests import DEPLOY, find

PARSE = """
import json, sys
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser = make_arg_parser(FlexibleArgumentParser())
for arguments in json.loads(sys.argv[1]):
    taken = parser.parse_args(arguments)
    print("taken:", taken.model_tag or taken.model)
"""


def options() -> list[Sequence[str]]:
    """The arguments after `vllm serve`: of the fleet, of the judge, of the large judge."""
    (server,) = find("Deployment", "vllm")["spec"]["template"]["spec"]["containers"]
    (judge,) = find("Deployment", "judge")["spec"]["template"]["spec"]["containers"]
    patches = yaml.safe_load((DEPLOY / "judge" / "llama-70b" / "four-gpus.yaml").read_text())
    (large,) = (patch["value"] for patch in patches if patch["path"].endswith("/args"))
    return [server["command"][2:], judge["args"], large]


@pytest.mark.integration
@pytest.mark.skipif("VLLM_PYTHON" not in os.environ, reason="for real vLLM: make test-vllm")
def test_vllm_takes_every_option_of_the_manifests() -> None:
    command = [os.environ["VLLM_PYTHON"], "-c", PARSE, json.dumps(options())]
    environment = {**os.environ, "VLLM_TARGET_DEVICE": "cpu"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    taken = [line for line in done.stdout.splitlines() if line.startswith("taken: ")]
    assert taken == [f"taken: {arguments[0]}" for arguments in options()]
