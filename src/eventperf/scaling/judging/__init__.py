"""Judging what was decided: why this number, how another policy had done, a backtest, its drawing."""
