"""Slow logs as servers of the field write them: Percona's, MariaDB's with plans, and those from Windows."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from eventperf.dbopt import Workload
from eventperf.dbopt.backends.mysql import sources
from eventperf.dbopt.backends.mysql.sources import SlowLogFile
from eventperf.dbopt.statements.fingerprint import parse

PERCONA = """\
/usr/sbin/mysqld, Version: 8.0.36-28 (Percona Server (GPL), Release 28, Revision 47601f19). started with:
Tcp port: 3306  Unix socket: /var/run/mysqld/mysqld.sock
Time                 Id Command    Argument
# Time: 2024-03-02T10:15:00.120943Z
# User@Host: app[app] @ web1 [10.0.0.7]  Id:    42
# Schema: shop  Last_errno: 0  Killed: 0
# Query_time: 0.500000  Lock_time: 0.000100  Rows_sent: 3  Rows_examined: 9000  Rows_affected: 0
# Tmp_tables: 1  Tmp_disk_tables: 0  Tmp_table_sizes: 0
# InnoDB_trx_id: 0
# Full_scan: Yes  Full_join: No  Tmp_table: Yes  Tmp_table_on_disk: No
# Filesort: No  Filesort_on_disk: No  Merge_passes: 0
#   InnoDB_IO_r_ops: 0  InnoDB_IO_r_bytes: 0  InnoDB_IO_r_wait: 0.000000
#   InnoDB_rec_lock_wait: 0.000000  InnoDB_queue_wait: 0.000000
#   InnoDB_pages_distinct: 25
# Log_slow_rate_type: query  Log_slow_rate_limit: 20
use shop;
SET timestamp=1709374500;
SELECT * FROM orders
WHERE customer = 7;
# Time: 2024-03-02T10:15:01.120943Z
# User@Host: app[app] @ web1 [10.0.0.7]  Id:    42
# Query_time: 0.250000  Lock_time: 0.000000  Rows_sent: 1  Rows_examined: 10
SET timestamp=1709374501;
SELECT name FROM customer WHERE id = 3;
# User@Host: app[app] @ web1 [10.0.0.7]  Id:    42
# Query_time: 0.000010  Lock_time: 0.000000  Rows_sent: 0  Rows_examined: 0
SET timestamp=1709374502;
# administrator command: Quit;
"""
MARIADB = """\
# Time: 240302 10:15:00
# User@Host: app[app] @ localhost []
# Thread_id: 9  Schema: shop  QC_hit: No
# Query_time: 0.300000  Lock_time: 0.000020  Rows_sent: 2  Rows_examined: 500
# Rows_affected: 0  Bytes_sent: 70
# Full_scan: Yes  Full_join: No  Tmp_table: No  Tmp_table_on_disk: No
# Filesort: Yes  Filesort_on_disk: No  Merge_passes: 0  Priority_queue: Yes
#
# explain: id\tselect_type\ttable\ttype\tpossible_keys\tkey\tkey_len\trows\tr_rows\tfiltered\tExtra
# explain: 1\tSIMPLE\torders\tALL\tNULL\tNULL\tNULL\t500\t500.00\t100.00\tUsing where; Using filesort
#
SET timestamp=1709374500;
SELECT id FROM orders WHERE state = 'open' ORDER BY at;
"""


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize(("log", "texts"), [(PERCONA, 2), (MARIADB, 1)])
def test_every_statement_of_a_log_is_read_whatever_its_lines_end_with(
    tmp_path: Path, log: str, texts: int, ending: str
) -> None:
    file = tmp_path / "slow.log"
    file.write_bytes(log.replace("\n", ending).encode())
    work = Workload.from_slow_log(file)
    assert len(work) == texts
    assert not [s for s in work if s.error or s.is_cut or "\r" in s.sql or "#" in s.sql]


def test_an_entry_stands_for_all_that_percona_did_not_log(tmp_path: Path) -> None:
    """``log_slow_rate_limit`` logs one of N: without it a busy statement weighs as little as a rare one."""
    file = tmp_path / "slow.log"
    file.write_text(PERCONA)
    work = Workload.from_slow_log(file)
    by_table = {s.fingerprint.text.split(" from ")[1].split()[0]: s for s in work}
    busy, plain = by_table["orders"], by_table["customer"]
    assert (busy.calls, busy.total_s, busy.max_s) == (20, pytest.approx(10.0), 0.5)
    assert (busy.rows_sent, busy.rows_examined) == (60, 180_000)
    assert (plain.calls, plain.total_s) == (1, 0.25)
    assert "20 calls for each entry" in work.since


def entries(count: int, *, text: str = "SELECT name FROM customer WHERE id = {n}") -> str:
    head = (
        "# User@Host: app[app] @ web1 []\n# Query_time: 0.5  Lock_time: 0.0  Rows_sent: 1  Rows_examined: 9\n"
    )
    return "".join(f"{head}SET timestamp={1709374500 + n};\n{text.format(n=n)};\n" for n in range(count))


def test_no_more_than_one_entry_of_a_log_is_held(tmp_path: Path) -> None:
    """A log of a day may be larger than the memory; 4 MB took 6 MB, and now the same as any other."""
    file = tmp_path / "slow.log"
    file.write_text(
        entries(1_000, text=f"SELECT name FROM customer WHERE note = '{'x' * 4_000}' AND id = {{n}}")
    )
    tracemalloc.start()
    recording = SlowLogFile(file).read(500)
    count = sum(1 for _ in recording.rows)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 501
    assert recording.covers.endswith("which ends 2024-03-02 10:31:39 UTC")
    assert peak < 1_000_000


def test_a_statement_of_many_megabytes_is_cut_and_the_next_entry_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "_LONGEST", 10_000)
    file = tmp_path / "slow.log"
    rows = ", ".join(["(1, 'x')"] * 3_000)
    one_line, many_lines = f"INSERT INTO t (a, b) VALUES {rows}", f"INSERT INTO u VALUES {rows}"
    file.write_text(
        entries(1, text=one_line) + entries(1, text=many_lines.replace("), (", "),\n(")) + entries(1)
    )
    texts = [row.sql for row in SlowLogFile(file).read(None).rows]
    assert [len(t) > 9_000 for t in texts] == [True, True, False]
    assert max(map(len, texts)) < 21_000
    assert "FROM customer WHERE id = 0" in texts[2]


def test_of_many_entries_of_one_form_one_is_parsed(tmp_path: Path) -> None:
    file = tmp_path / "slow.log"
    file.write_text(entries(200))
    before = parse.cache_info()
    (statement,) = Workload.from_slow_log(file)
    after = parse.cache_info()
    assert (statement.calls, len(statement.samples)) == (200, 16)
    assert after.hits + after.misses - before.hits - before.misses == 1
