"""Evaluations, once for all studies, take the place of cache keys and details; claims and leases.

The first schema kept no evaluator's name, so an evaluation is named by its metrics. When it ran is
taken from the study's events; where those do not say, it is when its trial ended, and 0 s.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "v2"
down_revision = "v1"
branch_labels = None
depends_on = None

_MOMENT = sa.DateTime(timezone=True)
_Span = tuple[datetime, datetime]

_evaluation = sa.table(
    "evaluation",
    sa.column("id", sa.Integer),
    sa.column("key", sa.String),
    sa.column("evaluator", sa.String),
    sa.column("trial_id", sa.Integer),
    sa.column("started", _MOMENT),
    sa.column("ended", _MOMENT),
    sa.column("seconds", sa.Float),
    sa.column("worker", sa.String),
    sa.column("document", sa.JSON),
)
_FIGURE = ("trial_id", "metric", "value", "low", "high")
_value = sa.table("value_v2", *map(sa.column, (*_FIGURE, "evaluation_id")))
_trial = sa.table(
    "trial",
    sa.column("id", sa.Integer),
    sa.column("study_id", sa.Integer),
    sa.column("number", sa.Integer),
    sa.column("started", _MOMENT),
    sa.column("ended", _MOMENT),
)
_event = sa.table(
    "event",
    sa.column("id", sa.Integer),
    sa.column("study_id", sa.Integer),
    sa.column("kind", sa.String),
    sa.column("data", sa.JSON),
)
_old_value = sa.table("value", *map(sa.column, (*_FIGURE, "cache_key")))
_detail = sa.table(
    "detail",
    sa.column("trial_id"),
    sa.column("metric"),
    sa.column("document", sa.JSON),
)


def upgrade() -> None:
    """Add the tables and columns, carry the figures over, remove what they stood in."""
    op.add_column(
        "study", sa.Column("archived", sa.Boolean, nullable=False, server_default=sa.false())
    )
    op.add_column("trial", sa.Column("stage", sa.String(255)))
    op.add_column(
        "trial", sa.Column("baseline", sa.Boolean, nullable=False, server_default=sa.false())
    )
    op.add_column(
        "trial", sa.Column("origin", sa.JSON, nullable=False, server_default=sa.text("'{}'"))
    )
    op.create_index("ix_trial_state", "trial", ["study_id", "state", "baseline", "number"])
    _create_tables()
    _carry_values(op.get_bind())
    op.drop_table("detail")
    op.drop_table("value")
    op.rename_table("value_v2", "value")
    op.create_index("ix_value_evaluation_id", "value", ["evaluation_id"])
    op.drop_table("meta")


def _create_tables() -> None:
    op.create_table(
        "evaluation",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("key", sa.String(255), unique=True),
        sa.Column("evaluator", sa.String(255), nullable=False),
        sa.Column("trial_id", sa.Integer, sa.ForeignKey("trial.id")),
        sa.Column("started", _MOMENT, nullable=False),
        sa.Column("ended", _MOMENT, nullable=False),
        sa.Column("seconds", sa.Float(53), nullable=False),
        sa.Column("worker", sa.String(255), nullable=False),
        sa.Column("document", sa.JSON, nullable=False),
    )
    op.create_index("ix_evaluation_paid", "evaluation", ["trial_id", "evaluator", "seconds"])
    op.create_table(
        "value_v2",
        sa.Column("trial_id", sa.Integer, sa.ForeignKey("trial.id"), primary_key=True),
        sa.Column("metric", sa.String(255), primary_key=True),
        sa.Column("value", sa.Float(53), nullable=False),
        sa.Column("low", sa.Float(53)),
        sa.Column("high", sa.Float(53)),
        sa.Column("evaluation_id", sa.Integer, sa.ForeignKey("evaluation.id")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "artifact",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("trial_id", sa.Integer, sa.ForeignKey("trial.id"), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("kind", sa.String(64), nullable=False),
        sa.Column("content_hash", sa.String(64), nullable=False, index=True),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("trial_id", "name"),
    )
    op.create_table("claim", sa.Column("key", sa.String(255), primary_key=True), *_holder())
    op.create_index("ix_claim_token", "claim", ["token"])
    study = sa.Column("study_id", sa.Integer, sa.ForeignKey("study.id"), primary_key=True)
    op.create_table("lease", study, *_holder())


def _holder() -> list[sa.Column[Any]]:
    return [
        sa.Column("token", sa.String(64), nullable=False),
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("process_started", sa.String(64), nullable=False),
        sa.Column("since", _MOMENT, nullable=False),
        sa.Column("expires", _MOMENT, nullable=False),
    ]


def _carry_values(connection: sa.Connection) -> None:
    """Make an evaluation of the figures that came together, and point each figure to its own."""
    spans = _spans(connection)
    known: dict[str, tuple[int, dict[str, Any]]] = {}
    for trial, figures in _figures(connection):
        groups: defaultdict[tuple[str | None, _Span | None, str], list[Any]] = defaultdict(list)
        for row in figures:
            span = spans.get((trial.study_id, trial.number, row.metric))
            alone = row.metric if row.cache_key is None and span is None else ""
            groups[row.cache_key, span, alone].append(row)
        carried = []
        for (key, span, alone), rows in groups.items():
            document = {row.metric: _figure(row) for row in rows}
            number = None
            if key in known and known[key][1] == document:
                number = known[key][0]
            elif not alone or rows[0].document:
                own = None if key in known else key
                number = _add_evaluation(connection, trial, own, span, document)
                if own is not None:
                    known[own] = number, document
            for row in rows:
                figure = {name: getattr(row, name) for name in _FIGURE}
                carried.append({**figure, "evaluation_id": number})
        if carried:
            connection.execute(_value.insert(), carried)


def _figures(connection: sa.Connection) -> Iterable[tuple[Any, list[Any]]]:
    """Yield each trial, oldest first, with its figures and their details."""
    joined = _old_value.outerjoin(
        _detail,
        sa.and_(
            _detail.c.trial_id == _old_value.c.trial_id, _detail.c.metric == _old_value.c.metric
        ),
    )
    query = sa.select(_old_value, _detail.c.document).select_from(joined)
    for trial in connection.execute(sa.select(_trial).order_by(_trial.c.id)).all():
        chosen = query.where(_old_value.c.trial_id == trial.id).order_by(_old_value.c.metric)
        yield trial, list(connection.execute(chosen).all())


def _spans(connection: sa.Connection) -> dict[tuple[int, int, str], _Span]:
    """Return when a study's trial was evaluated for a metric, as far as events say."""
    query = sa.select(_event).where(_event.c.kind == "evaluated").order_by(_event.c.id)
    found: dict[tuple[int, int, str], _Span] = {}
    for row in connection.execute(query):
        data = row.data
        if data.keys() >= {"trial", "metrics", "started", "ended"}:
            started, ended = (
                datetime.fromisoformat(data[name]).astimezone(UTC) for name in ("started", "ended")
            )
            for metric in data["metrics"]:
                found[row.study_id, data["trial"], metric] = started, ended
    return found


def _figure(row: Any) -> dict[str, Any]:
    return {"value": row.value, "low": row.low, "high": row.high, "detail": row.document or {}}


def _add_evaluation(
    connection: sa.Connection,
    trial: Any,
    key: str | None,
    span: _Span | None,
    document: dict[str, Any],
) -> int:
    moment = trial.ended or trial.started
    started, ended = span or (moment, moment)
    found = connection.execute(
        _evaluation.insert()
        .values(
            key=key,
            evaluator=",".join(document)[:255],
            trial_id=trial.id,
            started=started,
            ended=ended,
            seconds=(ended - started).total_seconds(),
            worker="",
            document=document,
        )
        .returning(_evaluation.c.id)
    )
    number: int = found.scalar_one()
    return number
