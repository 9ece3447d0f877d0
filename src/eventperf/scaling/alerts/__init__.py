"""Telling people once: episodes, a courier a sink, webhooks."""
