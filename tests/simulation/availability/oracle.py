"""The build as plain Python says it, one session after the other; slow, and shares no code."""

import datetime as dt
from collections import defaultdict
from zoneinfo import ZoneInfo

HOUR_S, DAY_S, WEEK_S = 3600, 86_400, 604_800
EPOCH = dt.datetime(1970, 1, 1)


def local_s(utc_s, zone):
    """Wall-clock seconds since 1970."""
    clock = dt.datetime.fromtimestamp(utc_s, tz=ZoneInfo(zone)).replace(tzinfo=None)
    return (clock - EPOCH).total_seconds()


def united(pieces, gap_s=None):
    """Disjoint ``[start, end]`` of overlapping ones; then across gaps, which are subtracted."""
    merged = []
    for start, end in sorted(pieces):
        if merged and start < merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], end)
        else:
            merged.append([start, end])
    if gap_s is None:
        return merged
    joined = []
    for start, end in merged:
        if joined and start - joined[-1]["end"] <= gap_s:
            joined[-1]["end"] = end
            joined[-1]["length"] += end - start
        else:
            joined.append({"start": start, "end": end, "length": end - start})
    return [[each["start"], each["start"] + each["length"]] for each in joined]


def in_hours(start, end, opens, closes):
    """Parts of a local span within a daily window."""
    length = (closes - opens) % DAY_S or DAY_S
    parts = []
    day = (start // DAY_S - 1) * DAY_S
    while day < end:
        low, high = max(start, day + opens), min(end, day + opens + length)
        if high > low:
            parts.append([low, high])
        day += DAY_S
    return parts


def spans(sessions, *, gap_s=None, min_s=0, max_s=None, drop=False, hours=None):
    """Local spans by client of sessions that pass.

    Args:
        sessions: Dicts with ``id, zone, pieces`` (UTC).
    """
    zones, by_client = {}, defaultdict(list)
    for session in sessions:
        zones[session["id"]] = session["zone"]
        by_client[session["id"]] += session["pieces"]
    found = {}
    for client, pieces in by_client.items():
        local = []
        for start, end in united(pieces, gap_s):
            length = end - start
            if max_s is not None and length > max_s:
                if drop:
                    continue
                length = max_s
            begins = local_s(start, zones[client])
            local.append([begins, begins + length])
        local = united(local)
        if hours is not None:
            local = [part for span in local for part in in_hours(*span, *hours)]
        found[client] = [span for span in local if span[1] - span[0] >= min_s]
    return found


def hourly(found, zones, first_s, last_s):
    """Mean number available by hour of the week, zone by zone."""
    total = [0.0] * 168
    for zone in sorted(set(zones.values())):
        available = seconds_by_hour(
            [span for client, spans in found.items() if zones[client] == zone for span in spans]
        )
        begin = local_s(first_s, zone)
        covered = seconds_by_hour([[begin, begin + last_s - first_s]])
        for hour in range(168):
            total[hour] += available[hour] / covered[hour]
    return total


def seconds_by_hour(spans):
    """Seconds in each hour of the week, from Monday."""
    seconds = [0.0] * 168
    for start, end in spans:
        at = start
        while at < end:
            until = min(end, (at // HOUR_S + 1) * HOUR_S)
            seconds[int((at // HOUR_S + 72) % 168)] += until - at
            at = until
    return seconds
