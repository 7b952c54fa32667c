"""The tables. Values are narrow rows; what list views do not need stands in tables of its own."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, DateTime, Dialect, Float, ForeignKey, String, Text, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

SCHEMA_VERSION = 1
"""Version of the tables; a record of a newer one is refused."""


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


class Meta(Base):
    """Facts on the record itself."""

    __tablename__ = "meta"
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[str] = mapped_column(String(255))


class Study(Base):
    """A study."""

    __tablename__ = "study"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(255), unique=True)
    config: Mapped[dict[str, Any]]
    conditions: Mapped[dict[str, Any]]
    versions: Mapped[dict[str, Any]]
    created: Mapped[datetime]


class ArchitectureRow(Base):
    """A network, once for all studies."""

    __tablename__ = "architecture"
    key: Mapped[str] = mapped_column(String(32), primary_key=True)
    topology_key: Mapped[str] = mapped_column(String(32), index=True)
    text: Mapped[str] = mapped_column(Text)
    document: Mapped[dict[str, Any]]


class Trial(Base):
    """A candidate in a study."""

    __tablename__ = "trial"
    __table_args__ = (UniqueConstraint("study_id", "number"),)
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


class ValueRow(Base):
    """One figure of a trial."""

    __tablename__ = "value"
    trial_id: Mapped[int] = mapped_column(ForeignKey("trial.id"), primary_key=True)
    metric: Mapped[str] = mapped_column(String(255), primary_key=True)
    value: Mapped[float] = mapped_column(Float(53))
    low: Mapped[float | None] = mapped_column(Float(53))
    high: Mapped[float | None] = mapped_column(Float(53))
    cache_key: Mapped[str | None] = mapped_column(String(255), index=True)


class Detail(Base):
    """How a figure came about."""

    __tablename__ = "detail"
    trial_id: Mapped[int] = mapped_column(ForeignKey("trial.id"), primary_key=True)
    metric: Mapped[str] = mapped_column(String(255), primary_key=True)
    document: Mapped[dict[str, Any]]


class Event(Base):
    """Something that happened."""

    __tablename__ = "event"
    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("study.id"), index=True)
    time: Mapped[datetime]
    kind: Mapped[str] = mapped_column(String(64))
    data: Mapped[dict[str, Any]]
