"""The list of studies of a workspace."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from dashboards import record
from dashboards.record import Reading
from dashboards.words import study_metric


def studies_view(connection: Reading) -> dict[str, Any]:
    """Return all studies, the newest first, with their states and who runs them."""
    counts: defaultdict[int, dict[str, int]] = defaultdict(dict)
    query = "SELECT study_id, state, count(*) FROM trial GROUP BY study_id, state"
    for study_id, state, count in connection.execute(query):
        counts[study_id][state] = count
    drivers = {
        row["study_id"]: {
            "host": row["host"],
            "pid": row["pid"],
            "expires": record.moment(row["expires"]),
        }
        for row in connection.execute("SELECT study_id, host, pid, expires FROM lease")
    }
    query = (
        "SELECT study_id, started, ended FROM trial "
        "WHERE id IN (SELECT max(id) FROM trial GROUP BY study_id)"
    )
    activity = {
        row[0]: max(filter(None, map(record.moment, row[1:]))) for row in connection.execute(query)
    }
    return {
        "studies": [
            {
                "name": study.name,
                "space": study.config.space,
                "data": study.config.data,
                "objectives": [
                    study_metric(name, study.config).to_json() for name in study.config.names
                ],
                "constraints": [str(bound) for bound in study.config.bounds],
                "trials": study.config.trials,
                "sampler": study.config.sampler,
                "states": counts[study.id],
                "created": study.created,
                "active": activity.get(study.id, study.created),
                "archived": study.archived,
                "device": study.conditions.get("device", ""),
                "driver": drivers.get(study.id),
            }
            for study in record.studies(connection)
        ]
    }
