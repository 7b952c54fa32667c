"""Alembic scripts that bring an older record to the schema of this release."""
