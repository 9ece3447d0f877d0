"""Glue to frameworks and to observability tools; every module needs what it is named after."""
