"""Functions of MySQL, MariaDB and SQLite that only compute.

A statement that somebody recorded is run again only if it calls nothing beyond these: what is not listed may
take locks, wait, read or write files, or be anybody's code.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from .calls import Calls, calls, one_query


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: What stands before a bracket and calls nothing.
_SYNTAX: Final = _words(
    """
    select from where and or not in exists any all some on using as join over by when then else case
    between like values having limit offset distinct union except intersect is div mod xor regexp
    rlike glob match against escape return partition index key force use ignore order group with
    recursive lateral window filter char varchar decimal dec numeric float double real binary
    varbinary integer int bigint smallint tinyint signed unsigned text nchar datetime time timestamp
    date interval materialized
    """
)
_COMMON: Final = _words(
    """
    abs ceil ceiling floor round sign sqrt exp ln log log2 log10 pow power pi sin cos tan asin acos
    atan atan2 radians degrees trunc truncate coalesce ifnull nullif if lower upper trim ltrim
    rtrim substr substring length char_length character_length octet_length bit_length replace instr
    concat concat_ws hex unhex count sum avg min max group_concat total row_number rank dense_rank
    percent_rank cume_dist ntile lag lead first_value last_value nth_value cast date time datetime
    strftime now current_date current_time current_timestamp json_array json_object json_extract
    json_type json_valid json_quote json_array_length
    """
)
#: By engine, beyond what both have.
_OWN: Final = {
    "mysql": _words(
        """
    lcase ucase mid left right lpad rpad repeat reverse space locate position find_in_set field elt
    strcmp ascii ord char bin oct conv format insert substring_index soundex quote to_base64
    from_base64 md5 sha sha1 sha2 crc32 greatest least isnull convert binary mod cot bit_and bit_or
    bit_xor bit_count std stddev stddev_pop stddev_samp var_pop var_samp variance any_value median
    percentile_cont percentile_disc curdate curtime sysdate utc_date utc_time utc_timestamp
    localtime localtimestamp unix_timestamp from_unixtime year quarter month week weekofyear weekday
    yearweek day dayofmonth dayofweek dayofyear dayname monthname hour minute second microsecond
    date_add date_sub adddate subdate addtime subtime datediff timediff timestampdiff timestampadd
    date_format time_format str_to_date extract to_days from_days to_seconds time_to_sec sec_to_time
    makedate maketime last_day period_add period_diff convert_tz get_format timestamp interval
    json_unquote json_contains json_contains_path json_keys json_length json_depth json_search
    json_value json_query json_exists json_overlaps json_table json_merge_patch json_merge_preserve
    json_set json_insert json_replace json_remove json_arrayagg json_objectagg json_pretty
    json_compact json_detailed regexp_replace regexp_substr regexp_instr regexp_like uuid_to_bin
    bin_to_uuid inet_aton inet_ntoa inet6_aton inet6_ntoa st_x st_y st_distance st_distance_sphere
    st_contains st_within st_intersects st_geomfromtext st_astext point mbrcontains mbrwithin
    mbrintersects grouping rand uuid values
    """
    ),
    "sqlite": _words(
        """
    julianday unixepoch timediff ifnull likely unlikely likelihood typeof unicode char printf format
    quote glob like zeroblob random concat concat_ws ceil floor mod json json_each json_tree
    json_set json_insert json_replace json_remove json_patch json_group_array json_group_object
    string_agg median bm25 highlight snippet matchinfo sqlite_version changes octet_length instr
    """
    ),
}
_ALLOWED: Final = {name: _SYNTAX.union(_COMMON, own) for name, own in _OWN.items()}
#: Words that write, lock or keep something without a call.
_KEEP: Final = frozenset({"into", "outfile", "dumpfile", "procedure", "nextval", "setval", "next"})


def listed(texts: Iterable[str], dialect: str) -> str | None:
    """Return why statements and the views that they name are not run; ``None`` when they may be.

    >>> listed(["SELECT upper(a) FROM t"], "mysql"), listed(["SELECT sleep(5)"], "mysql")
    (None, 'it calls sleep, which is not known to be harmless')
    """
    for text in texts:
        reason = one_query(text, dialect) or _reason(calls(text, dialect), text, dialect)
        if reason is not None:
            return reason
    return None


def _reason(found: Calls, text: str, dialect: str) -> str | None:
    if found.unread is not None:
        return found.unread
    unknown = {n for n in found.called if n.lower() not in _ALLOWED[dialect]}
    if dialect == "mysql":  # database.function(): anybody's code, whatever its name
        unknown |= found.qualified
    if unknown:
        return f"it calls {min(unknown, key=str.lower)}, which is not known to be harmless"
    lower = {w.lower() for w in found.words}
    kept = (lower & _KEEP) if dialect == "mysql" else {w for w in lower if w.startswith("pragma_")}
    if kept:
        return f"it says {min(kept)}"
    return "it sets a variable" if dialect == "mysql" and ":=" in text else None
