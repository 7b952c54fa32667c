"""Two studies of one workspace while everything around them is broken at random moments."""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests import postgres
from tests.chaos.run import chaos


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("cluster", [False, True], ids=["local", "cluster"])
def test_nothing_is_lost_doubled_or_paid_twice(cluster: bool) -> None:
    """The counts are printed; what must hold is asserted on the way."""
    if cluster and postgres.MISSING:
        pytest.skip(postgres.MISSING)
    with TemporaryDirectory(prefix="chaos") as folder:  # sockets have short names
        Path(folder).chmod(0o755)
        counts = chaos(
            Path(folder), cluster=cluster, minutes=3.0, every=8.0, seed=int(time.time()), faults=10
        )
    assert counts["faults in all"] >= 10
    assert counts["paid again after the result was stored"] == 0
