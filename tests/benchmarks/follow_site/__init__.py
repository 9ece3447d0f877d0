"""The Django application that every cache of ``bench_follow`` serves."""
