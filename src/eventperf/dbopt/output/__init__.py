"""Advice for people and tools: terminal, HTML, Alembic, Django."""
