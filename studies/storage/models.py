"""The tables. Values are narrow rows; what list views do not need stands last, or elsewhere."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

REVISIONS = ("v1", "v2", "v3", "v4")
"""Revisions of the tables, oldest first, as in ``migrations/versions``; the last one is below."""

VERSION_TABLE = "nas_alembic_version"
"""Holds a record's revision. Optuna, whose studies may share the database, takes the usual name."""

version = Table(
    VERSION_TABLE,
    MetaData(),  # of its own: it is Alembic's, and no table of a record
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name=f"{VERSION_TABLE}_pkc"),
)


class UtcDateTime(TypeDecorator[datetime]):
    """A moment in UTC, also where the database keeps no time zone (SQLite)."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Bring a moment to UTC."""
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:
        """Say that what was stored is UTC."""
        if value is None:
            return None
        moment: datetime = value
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


class Base(DeclarativeBase):
    """All tables of the record."""

    type_annotation_map = {dict[str, Any]: JSON, datetime: UtcDateTime}  # noqa: RUF012


class Study(Base):
    """A study."""

    __tablename__ = "study"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(255), unique=True)
    config: Mapped[dict[str, Any]]
    conditions: Mapped[dict[str, Any]]
    versions: Mapped[dict[str, Any]]
    created: Mapped[datetime]
    archived: Mapped[bool] = mapped_column(server_default=false())


class ArchitectureRow(Base):
    """A network, once for all studies."""

    __tablename__ = "architecture"
    key: Mapped[str] = mapped_column(String(32), primary_key=True)
    topology_key: Mapped[str] = mapped_column(String(32), index=True)
    text: Mapped[str] = mapped_column(Text)
    document: Mapped[dict[str, Any]]


class Trial(Base):
    """A candidate in a study; the index answers what is counted and where objectives are read."""

    __tablename__ = "trial"
    __table_args__ = (
        UniqueConstraint("study_id", "number"),
        Index("ix_trial_state", "study_id", "state", "baseline", "number"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("study.id"))
    number: Mapped[int]
    architecture_key: Mapped[str] = mapped_column(ForeignKey("architecture.key"), index=True)
    decisions: Mapped[dict[str, Any]]
    rejections: Mapped[dict[str, Any]]
    state: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str | None] = mapped_column(Text)
    started: Mapped[datetime]
    ended: Mapped[datetime | None]
    stage: Mapped[str | None] = mapped_column(String(255))
    baseline: Mapped[bool] = mapped_column(server_default=false())
    origin: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))


class EvaluationRow(Base):
    """What an evaluator found, once for all studies where it has a key.

    The document holds for each metric its ``value``, ``low``, ``high`` and ``detail``. Of which
    network it is, its trial says, or a column where there is no trial.
    """

    __tablename__ = "evaluation"
    __table_args__ = (Index("ix_evaluation_paid", "trial_id", "evaluator", "seconds"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str | None] = mapped_column(String(255), unique=True)
    evaluator: Mapped[str] = mapped_column(String(255))
    trial_id: Mapped[int | None] = mapped_column(ForeignKey("trial.id"))  # that it was paid for
    started: Mapped[datetime]
    ended: Mapped[datetime]
    seconds: Mapped[float] = mapped_column(Float(53))
    worker: Mapped[str] = mapped_column(String(255))
    document: Mapped[dict[str, Any]]
    architecture_key: Mapped[str | None] = mapped_column(String(32))


class ValueRow(Base):
    """One figure of a trial; the rows of a trial lie together."""

    __tablename__ = "value"
    __table_args__ = {"sqlite_with_rowid": False}  # noqa: RUF012
    trial_id: Mapped[int] = mapped_column(ForeignKey("trial.id"), primary_key=True)
    metric: Mapped[str] = mapped_column(String(255), primary_key=True)
    value: Mapped[float] = mapped_column(Float(53))
    low: Mapped[float | None] = mapped_column(Float(53))
    high: Mapped[float | None] = mapped_column(Float(53))
    evaluation_id: Mapped[int | None] = mapped_column(ForeignKey("evaluation.id"), index=True)


class Event(Base):
    """Something that happened."""

    __tablename__ = "event"
    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("study.id"), index=True)
    time: Mapped[datetime]
    kind: Mapped[str] = mapped_column(String(64))
    data: Mapped[dict[str, Any]]


class ArtifactRow(Base):
    """A file that a trial made; its content lies in the workspace under its hash."""

    __tablename__ = "artifact"
    __table_args__ = (UniqueConstraint("trial_id", "name"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    trial_id: Mapped[int] = mapped_column(ForeignKey("trial.id"))
    name: Mapped[str] = mapped_column(String(255))
    kind: Mapped[str] = mapped_column(String(64))
    content_hash: Mapped[str] = mapped_column(String(64), index=True)
    size: Mapped[int] = mapped_column(BigInteger)


class _Held:
    """Columns that say who holds something, and until when unless it is renewed."""

    token: Mapped[str] = mapped_column(String(64))
    host: Mapped[str] = mapped_column(String(255))
    pid: Mapped[int]
    process_started: Mapped[str] = mapped_column(String(64))
    since: Mapped[datetime]
    expires: Mapped[datetime]


class Claim(_Held, Base):
    """An evaluation that somebody is paying for."""

    __tablename__ = "claim"
    __table_args__ = (Index("ix_claim_token", "token"),)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)


class Lease(_Held, Base):
    """The driver that runs a study, and how often it has written to the record."""

    __tablename__ = "lease"
    study_id: Mapped[int] = mapped_column(ForeignKey("study.id"), primary_key=True)
    sequence: Mapped[int] = mapped_column(BigInteger, server_default=text("0"), sort_order=1)


class WorkerRow(Base):
    """A worker of a study, as its driver saw it last."""

    __tablename__ = "worker"
    study_id: Mapped[int] = mapped_column(ForeignKey("study.id"), primary_key=True)
    name: Mapped[str] = mapped_column(String(255), primary_key=True)
    node: Mapped[str] = mapped_column(String(255))
    slot: Mapped[str] = mapped_column(String(16))
    device: Mapped[str] = mapped_column(String(255))
    state: Mapped[str] = mapped_column(String(16))
    trial: Mapped[int | None]
    since: Mapped[datetime]
    seen: Mapped[datetime]
