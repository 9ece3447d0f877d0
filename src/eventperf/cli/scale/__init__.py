"""`eventperf scale`: run from a file, backtest a policy, explain decisions."""
