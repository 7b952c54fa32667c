"""Peak memory on a GPU: the first candidate of a process is charged what the next ones are."""

import json
import subprocess
import sys

import pytest
import torch

from kernels.environment import CACHE_VARIABLE

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

FRESH = """
import json
from evaluators.memory import PeakMemoryEvaluator
from kernels.device import detect
from search_spaces.architecture import Architecture
net = Architecture.parse("input 3x32x32; conv 64 k3 bn relu; gap; flatten; linear 512; linear 10")
evaluator = PeakMemoryEvaluator(detect("cuda"), batch=32, dtype="float16")
print(json.dumps([evaluator.evaluate(net)[0].value for _ in range(3)]))
"""


def test_the_first_figure_of_a_process_is_that_of_the_next_ones(monkeypatch, tmp_path):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-c", FRESH], capture_output=True, text=True, check=True, timeout=300
    )
    first, *others = json.loads(done.stdout.splitlines()[-1])
    assert others == [first, first]
